"""The engine's arithmetic in C++ for processors with matrix units for bf16 (AMX).

torch and oneDNN leave two things undone there: every small operation goes through memory, which takes longer than the
products themselves, and a product of few columns runs on one thread. `kernels.cpp` does a whole region at once,
`layer.cpp` puts an encoder layer together of them, and `layer` hands it tensors, so that a layer is one call.
`building` compiles both, in a wheel or at first use, `library` loads them, `calls` is for what lies outside layers.
Without such a processor, or with neither a wheel nor a compiler, the engine computes with torch alone.
"""
