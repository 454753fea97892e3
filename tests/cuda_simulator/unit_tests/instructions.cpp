// The wrapper kernels' outputs against the same matrices handled element by element. The layouts below are written
// from the PTX manual's tables, not from the emulation.
#include "check.hpp"

namespace {

const unsigned LANES = 32;

int small_integer(unsigned index) { return int(input_word(index) % 17u) - 8; }

// A pair of 16-bit elements is one word; element e of lane l of a fragment of `words` words a lane.
int fragment_element(unsigned first_input, unsigned lane, unsigned words, unsigned element) {
    return small_integer(first_input + lane * words * 2 + element);
}

// ------------------------------------------------------------------------------------------------ ldmatrix

uint16_t ldmatrix_source(unsigned matrix, unsigned row, unsigned column) {
    const unsigned scrambled = ((matrix * 8 + row) * 11 + 5) % 32;
    return uint16_t(input_word(scrambled * 8 + column));
}

void test_ldmatrix(const char* kernel, unsigned matrices, bool transposed) {
    const std::vector<uint32_t> output = run_wrapper(kernel, LANES, LANES * matrices);
    for (unsigned matrix = 0; matrix < matrices; matrix++) {
        for (unsigned row = 0; row < 8; row++) {
            for (unsigned column = 0; column < 8; column++) {
                // The thread that holds (row, column) of the matrix, or of its transpose.
                const unsigned r = transposed ? column : row;
                const unsigned c = transposed ? row : column;
                const unsigned lane = r * 4 + c / 2;
                const uint16_t element = uint16_t(output[lane * matrices + matrix] >> (c % 2 * 16));
                check(element == ldmatrix_source(matrix, row, column), kernel, long(matrix * 64 + row * 8 + column));
            }
        }
    }
}

// ------------------------------------------------------------------------------------------------ mma

void test_mma(const char* kernel) {
    int a[16][16], b[16][8], c[16][8];
    for (unsigned lane = 0; lane < LANES; lane++) {
        const unsigned group = lane >> 2;
        const unsigned in_group = lane % 4;
        for (unsigned i = 0; i < 8; i++) { // a0..a7
            const unsigned row = i == 0 || i == 1 || i == 4 || i == 5 ? group : group + 8;
            const unsigned column = in_group * 2 + (i & 1) + (i < 4 ? 0 : 8);
            a[row][column] = fragment_element(0, lane, 4, i);
        }
        for (unsigned i = 0; i < 4; i++) { // b0..b3
            b[in_group * 2 + (i & 1) + (i < 2 ? 0 : 8)][group] = fragment_element(1024, lane, 2, i);
        }
        for (unsigned i = 0; i < 4; i++) { // c0..c3
            c[i < 2 ? group : group + 8][in_group * 2 + (i & 1)] = int(input_word(2048 + lane * 4 + i) % 101u);
        }
    }
    const std::vector<uint32_t> output = run_wrapper(kernel, LANES, LANES * 4);
    for (unsigned row = 0; row < 16; row++) {
        for (unsigned column = 0; column < 8; column++) {
            int sum = c[row][column];
            for (unsigned k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
            const unsigned lane = row % 8 * 4 + column / 2;
            const unsigned register_index = row / 8 * 2 + column % 2;
            const float result = __uint_as_float(output[lane * 4 + register_index]);
            check(result == float(sum), kernel, long(row * 8 + column));
        }
    }
}

// ------------------------------------------------------------------------------------------------ wgmma

void test_wgmma(const char* kernel, unsigned columns) {
    const unsigned words = columns / 2; // of d, a thread
    const std::vector<uint32_t> output = run_wrapper(kernel, 128, 128 * words);
    for (unsigned row = 0; row < 64; row++) {
        for (unsigned column = 0; column < columns; column++) {
            const unsigned thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
            const unsigned register_index = column / 8 * 4 + row % 16 / 8 * 2 + column % 2;
            const bool keeps_d = columns == 64;
            int sum = keeps_d ? int(input_word((thread * 64 + register_index) % INPUT_WORDS) % 101u) : 0;
            for (unsigned k = 0; k < 64; k++) {
                sum += small_integer((row * 64 + k) % 4096) * small_integer(4096 + (column * 64 + k) % 4096);
            }
            const float result = __uint_as_float(output[thread * words + register_index]);
            check(result == float(sum), kernel, long(row * columns + column));
        }
    }
}

// ------------------------------------------------------------------------------------------------ the others

void test_cp_async() {
    const std::vector<uint32_t> output = run_wrapper("wrapper_cp_async", LANES, 256);
    for (unsigned i = 0; i < 128; i++) {
        const unsigned source = 127 - i;
        check(output[i] == input_word(source), "cp.async", i);
        // Copies read nothing, six bytes or all of them in turn.
        const unsigned turn = source / 4 % 3;
        const unsigned read[3][4] = {{0, 0, 0, 0}, {~0u, 0xffffu, 0, 0}, {~0u, ~0u, ~0u, ~0u}};
        check(output[128 + i] == (input_word(128 + source) & read[turn][source % 4]), "cp.async, zero fill", i);
    }
}

void test_shuffles() {
    const std::vector<uint32_t> output = run_wrapper("wrapper_shuffles", LANES, 256);
    uint32_t ballot = 0;
    for (unsigned lane = 0; lane < LANES; lane++) ballot |= (input_word(lane) & 1u) << lane;
    for (unsigned lane = 0; lane < LANES; lane++) {
        check(output[lane] == input_word((lane * 7 + 3) % 32), "shfl", lane);
        check(output[32 + lane] == input_word(lane < 5 ? lane : lane - 5), "shfl_up", lane);
        check(output[64 + lane] == input_word(lane % 16 + 3 < 16 ? lane + 3 : lane), "shfl_down", lane);
        check(output[96 + lane] == input_word(lane ^ 17), "shfl_xor", lane);
        check(output[128 + lane] == input_word(lane / 8 * 8 + lane % 5), "shfl in segments", lane);
        check(output[160 + lane] == ballot, "ballot", lane);
        check(output[192 + lane] == 1u, "any and all", lane);
        check(output[224 + lane] == input_word(lane ^ (lane < 16 ? 3 : 5)), "shfl of half a warp", lane);
    }
}

void test_barriers() {
    const std::vector<uint32_t> named = run_wrapper("wrapper_named_barrier", 96, 96);
    for (unsigned i = 0; i < 96; i++) check(named[i] == input_word(i < 64 ? 63 - i : i), "named barrier", i);
    const std::vector<uint32_t> rounds = run_wrapper("wrapper_mbarrier", 128, 128);
    for (unsigned lane = 0; lane < LANES; lane++) {
        uint32_t sum = 0;
        for (unsigned round = 0; round < 4; round++) {
            const unsigned first = round * 96 + lane;
            sum = sum * 3u + input_word(first) + input_word(first + 32) * 5u + input_word(first + 64) * 7u;
        }
        check(rounds[96 + lane] == sum, "mbarrier", lane);
    }
}

void test_tma() {
    const std::vector<uint32_t> output = run_wrapper("wrapper_tma_load_2d", 128, 2048);
    for (unsigned box = 0; box < 2; box++) {
        const unsigned x = box == 0 ? 0 : 16, y = box == 0 ? 8 : 48;
        for (unsigned row = 0; row < 32; row++) {
            for (unsigned pair = 0; pair < 32; pair++) {
                const bool inside = y + row < 64 && x + 2 * pair < 64;
                const uint32_t expected = inside ? input_word((y + row) * 32 + x / 2 + pair) : 0u;
                const unsigned chunk = (pair / 4) ^ (row % 8);
                check(output[box * 1024 + row * 32 + chunk * 4 + pair % 4] == expected, "TMA", long(row * 32 + pair));
            }
        }
    }
}

} // namespace

void test_instructions() {
    test_ldmatrix("wrapper_ldmatrix_x4", 4, false);
    test_ldmatrix("wrapper_ldmatrix_x4_trans", 4, true);
    test_ldmatrix("wrapper_ldmatrix_x2", 2, false);
    test_ldmatrix("wrapper_ldmatrix_x2_trans", 2, true);
    test_mma("wrapper_mma_bf16");
    test_mma("wrapper_mma_f16");
    test_wgmma("wrapper_wgmma_n64_bf16", 64);
    test_wgmma("wrapper_wgmma_n64_f16", 64);
    test_wgmma("wrapper_wgmma_n128_bf16", 128);
    test_wgmma("wrapper_wgmma_n128_f16", 128);
    test_cp_async();
    test_shuffles();
    test_barriers();
    test_tma();
}
