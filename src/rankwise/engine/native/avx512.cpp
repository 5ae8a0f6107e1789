// x86 with AVX-512: fp32 in vectors of sixteen. 32 registers: 12 rows of two vectors of sums.
#define LANES 16
#define BLOCK_ROWS 12
#define BLOCK_VECTORS 2
#include "vector.h"
using Number = float;
#include "sums_vector.h"
#include "library.h"
