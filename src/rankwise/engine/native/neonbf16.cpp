// 64-bit Arm with instructions for bf16 (Neoverse V1 and N2, Apple M2 and later): products of small matrices (BFMMLA), sums in
// fp32.
#define LANES 4
#include "vector.h"
using Number = bf16;
#include "sums_bfmmla.h"
#include "library.h"
