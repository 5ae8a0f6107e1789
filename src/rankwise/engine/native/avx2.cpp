// x86 with AVX2 and FMA: fp32 in vectors of eight. 16 registers: 6 rows of two vectors of sums.
#define LANES 8
#define BLOCK_ROWS 6
#define BLOCK_VECTORS 2
#include "vector.h"
using Number = float;
#include "sums_vector.h"
#include "library.h"
