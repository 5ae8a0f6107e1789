"""The engine's arithmetic in C++ for processors with matrix units for bf16 (AMX).

torch and oneDNN leave two things undone there: every small operation goes through memory, which takes longer than the
products themselves, and a product of few columns runs on one thread. `kernels.cpp` does a whole region at once.
`building` compiles it, in a wheel or at first use, `library` loads it, `calls` hands it tensors. Without such a processor,
or with neither a wheel nor a compiler, the engine computes with torch alone.
"""
