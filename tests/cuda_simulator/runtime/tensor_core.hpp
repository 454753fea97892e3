// What mma.sync and wgmma share. Internal to the runtime.
#pragma once

#include "simulator/tensor_core.hpp"

namespace simulator {

inline float element_to_float(Storage storage, uint16_t bits) {
    return storage == Storage::BF16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

} // namespace simulator
