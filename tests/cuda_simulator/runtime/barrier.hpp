// Operations that all threads of a mask or of a warpgroup perform together. Internal to the runtime.
#pragma once

#include "block.hpp"

namespace simulator {

// Runs once, in the last thread to arrive; `arguments` by lane, only those in `lanes` are there.
using WarpFunction = void (*)(void* const* arguments, uint32_t lanes);
void warp_collective(uint32_t mask, const char* operation, Site site, void* argument, WarpFunction function);

using WarpgroupFunction = void (*)(void* const* arguments, Warpgroup& group);
void warpgroup_collective(const char* operation, Site site, void* argument, WarpgroupFunction function);

} // namespace simulator
