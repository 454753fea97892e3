// Counting checks; a failed one prints where and what.
#pragma once

#include "../harness.hpp"

#include <cstdio>

extern unsigned checks_passed;
extern unsigned checks_failed;

inline void check(bool condition, const char* what, long detail, int line = __builtin_LINE(),
                  const char* file = __builtin_FILE()) {
    const unsigned printed_failures = 20;
    if (condition) {
        checks_passed++;
    } else if (checks_failed++ < printed_failures) {
        printf("FAIL %s:%d: %s (%ld)\n", file, line, what, detail);
    }
}

const unsigned INPUT_WORDS = 8192;

// Word i of every wrapper's input; wrappers/cases.txt documents it.
uint32_t input_word(uint32_t i);

// A wrapper's whole output under the current setting.
std::vector<uint32_t> run_wrapper(const std::string& kernel, unsigned threads, unsigned output_words);

void test_conversions();
void test_instructions();
void test_device_memory();
void test_launches();
void test_tensor_maps();
void test_golden_outputs();
void write_golden_outputs(const char* path);
