# Read by CMake at `project("llama.cpp")`, inside the build of llama-cpp-python.
# The package forces llama.cpp's `common` library on and never loads it. It is 57 of 140 targets, the
# slow half of the compile. A variable of this name, set here, hides the forced cache entry.
set(LLAMA_BUILD_COMMON OFF)
