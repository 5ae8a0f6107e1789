"""The engine's layers in C++, for the instruction sets that processors have: AMX, AVX-512 with and without bf16, AVX2, NEON.

torch and oneDNN leave two things undone: every small operation goes through memory, which takes longer than the products
themselves in a small model, and a step of many small operations waits for Python. Here a whole region is done at once, and a
layer is one call.

`layer.h` puts an encoder layer together of `linear.h` (adapters around `product.h`), `attention.h` and `elementwise.h`,
`prenorm.h` one whose norms come first: both over `pass.h` (layer, batch, masks, what is kept) and `context.h` (attention of a
batch's groups); `relative.h` is what distances add to attention, `several.h` rows of several classifiers in one
pass, `integers.h` products in eight bits, `dropout.h` dropout, `panels.h` how matrices are laid out, `threads.h` and `team.h` how work is
shared out. All of it is written once over three things that differ: the vector class (`vector.h`), the sums of a block of a product (`sums_vector.h`, `sums_amx.h`) and the precision of products.
A unit an instruction set (`avx2.cpp` and so on) says which it takes and becomes a library of its own (`library.h`).

`building` compiles them, in a wheel or at first use; `library` loads one; `backend` chooses and calls it; `layer` hands it an
encoder layer's tensors, `several` what several classifiers change of it. Without a known instruction set, a wheel or a compiler the engine computes with torch alone.
"""
