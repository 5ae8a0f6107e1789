// 64-bit Arm: fp32 in NEON's vectors of four. 32 registers: 6 rows of four vectors of sums.
#define LANES 4
#define BLOCK_ROWS 6
#define BLOCK_VECTORS 4
#include "vector.h"
using Number = float;
#include "sums_vector.h"
#include "library.h"
