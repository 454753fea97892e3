// Runs the kernels of wrappers/cases.txt and compares with wrappers/outputs.txt.
#include "check.hpp"

#include "simulator.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace {

const unsigned DYNAMIC_SHARED_BYTES = 32768;
const unsigned LISTED_WORDS = 64;

struct Case {
    std::string kernel;
    unsigned threads;
    unsigned output_words;
    int capability;
    bool takes_tensor_map;
};

std::string folder() { return WRAPPERS_FOLDER; }

std::ifstream open_list(const char* name) {
    std::ifstream file(folder() + "/" + name);
    if (!file) {
        fprintf(stderr, "cannot read %s/%s\n", folder().c_str(), name);
        exit(2);
    }
    return file;
}

std::vector<Case> read_cases() {
    std::ifstream file = open_list("cases.txt");
    std::vector<Case> cases;
    for (std::string line; std::getline(file, line);) {
        if (line.empty() || line[0] == '#') continue;
        Case entry;
        std::istringstream fields(line);
        fields >> entry.kernel >> entry.threads >> entry.output_words >> entry.capability >> entry.takes_tensor_map;
        cases.push_back(entry);
    }
    return cases;
}

TensorMap tensor_map(const uint32_t* input) {
    TensorMap map = {};
    map.base = reinterpret_cast<const unsigned char*>(input);
    map.extent[0] = 64;
    map.extent[1] = 64;
    map.row_stride = 128;
    map.box[0] = 64;
    map.box[1] = 32;
    map.element_bytes = 2;
    map.swizzle_128_bytes = 1;
    return map;
}

uint64_t fnv1a(const std::vector<uint32_t>& words) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (uint32_t word : words) {
        for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (word >> shift & 0xff)) * 0x100000001b3ull;
    }
    return hash;
}

std::string output_line(const Case& entry) {
    const std::vector<uint32_t> words = run_wrapper(entry.kernel, entry.threads, entry.output_words);
    char text[32];
    snprintf(text, sizeof text, " %016llx", static_cast<unsigned long long>(fnv1a(words)));
    std::string line = entry.kernel + text;
    for (unsigned i = 0; i < LISTED_WORDS && i < words.size(); i++) {
        snprintf(text, sizeof text, " %08x", words[i]);
        line += text;
    }
    return line;
}

} // namespace

uint32_t input_word(uint32_t i) {
    uint32_t x = i * 0x9e3779b1u + 0x85ebca6bu;
    x ^= x >> 15;
    x *= 0x2c1b3c6du;
    x ^= x >> 12;
    return x;
}

std::vector<uint32_t> run_wrapper(const std::string& kernel, unsigned threads, unsigned output_words) {
    std::vector<uint32_t> words(INPUT_WORDS);
    for (uint32_t i = 0; i < INPUT_WORDS; i++) words[i] = input_word(i);
    harness::DeviceBuffer<uint32_t> input(words);
    harness::DeviceBuffer<uint32_t> output(output_words);
    const uint32_t* input_data = input.data();
    const TensorMap map = tensor_map(input_data);
    const std::string error =
        harness::launch(kernel, 1, threads, DYNAMIC_SHARED_BYTES, input_data, output.data(), map);
    check(error.empty(), error.c_str(), 0);
    return output.read();
}

void test_golden_outputs() {
    std::ifstream file = open_list("outputs.txt");
    for (const Case& entry : read_cases()) {
        std::string expected;
        std::getline(file, expected);
        check(output_line(entry) == expected, entry.kernel.c_str(), 0);
    }
}

void write_golden_outputs(const char* path) {
    std::ofstream file(path);
    for (const Case& entry : read_cases()) file << output_line(entry) << "\n";
}
