// What device.cuh includes when the compiler is not CUDA's: every CUDA name a kernel may use, executed on the CPU.
#pragma once

#include "simulator/language.hpp"
#include "simulator/runtime.hpp"

#include "simulator/collectives.hpp"
#include "simulator/hopper.hpp"
#include "simulator/tensor_core.hpp"
