// x86 with AVX-512's instructions for eight bits (vpdpbusd) and bf16: products with frozen matrices in eight bits, all others in
// bf16.
#define LANES 16
#define BLOCK_ROWS 12
#define BLOCK_VECTORS 2
#define EIGHT_BITS
#include "vector.h"
using Number = bf16;
#include "sums_vector.h"
#include "library.h"
