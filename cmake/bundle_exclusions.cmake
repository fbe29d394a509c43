# Shared libraries that a bundle leaves to the machine, whose own they have to suit: the C library,
# the driver, NVIDIA's libraries and Open MPI.
set(bundle_exclusions
    "^ld-linux" "^lib(c|m|dl|rt|pthread|resolv|util)\\.so" "^lib(cuda|cudnn|cublas|nccl|nv)"
    "^lib(mpi|open-rte|open-pal|pmix)")
