// x86 with matrix units (AMX): bf16 with sums in fp32. What is written goes past the caches.
#define LANES 16
#define STREAMED
#include "vector.h"
using Number = bf16;
#include "sums_amx.h"
#include "library.h"
