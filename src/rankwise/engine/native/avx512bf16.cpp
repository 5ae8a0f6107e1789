// x86 with AVX-512's instructions for bf16: products of pairs (vdpbf16ps), sums in fp32. 12 rows of two vectors of sums.
#define LANES 16
#define BLOCK_ROWS 12
#define BLOCK_VECTORS 2
#include "vector.h"
using Number = bf16;
#include "sums_vector.h"
#include "library.h"
