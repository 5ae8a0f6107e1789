// Any processor: fp32, in whatever vectors of four the compiler makes of it. For tests and sanitizers.
#define LANES 4
#define BLOCK_ROWS 4
#define BLOCK_VECTORS 4
#include "vector.h"
using Number = float;
#include "sums_vector.h"
#include "library.h"
