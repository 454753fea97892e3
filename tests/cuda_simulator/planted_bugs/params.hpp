// The one argument of every planted kernel.
#pragma once

struct PlantedParams {
    TensorMap map; // `input` as 16-bit elements, rows of 64: for the TMA kernel
    const float* input;
    float* output;
    int count; // elements of input and of output
    unsigned* arrivals; // 0
};
