// The simulator's unit tests: what it emulates against naive arithmetic.
//   unit_tests                        runs them
//   unit_tests --write-outputs FILE   writes what wrappers/outputs.txt should be
#include "check.hpp"

#include <cstring>

unsigned checks_passed = 0;
unsigned checks_failed = 0;

int main(int argument_count, char** arguments) {
    if (argument_count == 3 && strcmp(arguments[1], "--write-outputs") == 0) {
        write_golden_outputs(arguments[2]);
        return 0;
    }
    test_conversions();
    test_device_memory();
    test_launches();
    test_tensor_maps();
    for (const harness::Setting& setting : harness::all_settings()) {
        harness::apply(setting);
        test_instructions();
        test_golden_outputs();
    }
    printf("%u passed, %u failed\n", checks_passed, checks_failed);
    return checks_failed != 0;
}
