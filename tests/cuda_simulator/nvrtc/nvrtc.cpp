// A stand-in libnvrtc: compiles nothing and answers with the placeholder image that the stand-in driver takes.
// What NVRTC really makes of the kernels is tested with NVRTC itself.
#include "../driver/image.hpp"

#include <string>

#define NVRTC_API extern "C" __attribute__((visibility("default")))

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string inputs; // everything that the image's identity depends on
    bool compiled_for_device = false;
    std::string image;
};

const int SUPPORTED_ARCHITECTURES[] = {75, 80, 86, 87, 89, 90, 100, 120};
const int ARCHITECTURE_COUNT = sizeof SUPPORTED_ARCHITECTURES / sizeof SUPPORTED_ARCHITECTURES[0];
const char LOG[] = ""; // a successful compilation without warnings

bool is_real_architecture(const std::string& option) {
    return option.find("-arch=sm_") != std::string::npos || option.find("-architecture=sm_") != std::string::npos;
}

} // namespace

NVRTC_API Result nvrtcVersion(int* major, int* minor) {
    *major = 13;
    *minor = 4;
    return SUCCESS;
}

NVRTC_API Result nvrtcGetNumSupportedArchs(int* count) {
    *count = ARCHITECTURE_COUNT;
    return SUCCESS;
}

NVRTC_API Result nvrtcGetSupportedArchs(int* architectures) {
    memcpy(architectures, SUPPORTED_ARCHITECTURES, sizeof SUPPORTED_ARCHITECTURES);
    return SUCCESS;
}

NVRTC_API const char* nvrtcGetErrorString(Result result) {
    switch (result) {
    case SUCCESS:
        return "NVRTC_SUCCESS";
    case INVALID_INPUT:
        return "NVRTC_ERROR_INVALID_INPUT";
    case INVALID_PROGRAM:
        return "NVRTC_ERROR_INVALID_PROGRAM";
    case INVALID_OPTION:
        return "NVRTC_ERROR_INVALID_OPTION";
    case COMPILATION:
        return "NVRTC_ERROR_COMPILATION";
    }
    return "NVRTC_ERROR unknown";
}

NVRTC_API Result nvrtcCreateProgram(Program** program, const char* source, const char*, int header_count,
                                    const char* const* headers, const char* const* include_names) {
    if (!program || !source || header_count < 0) return INVALID_INPUT;
    *program = new Program;
    (*program)->inputs = source;
    for (int i = 0; i < header_count; i++) (*program)->inputs += std::string(include_names[i]) + headers[i];
    return SUCCESS;
}

NVRTC_API Result nvrtcDestroyProgram(Program** program) {
    if (!program || !*program) return INVALID_PROGRAM;
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

NVRTC_API Result nvrtcCompileProgram(Program* program, int option_count, const char* const* options) {
    if (!program) return INVALID_PROGRAM;
    std::string inputs = program->inputs;
    for (int i = 0; i < option_count; i++) {
        const std::string option = options[i];
        if (option.empty() || option[0] != '-') return INVALID_OPTION;
        if (is_real_architecture(option)) program->compiled_for_device = true;
        inputs += option;
    }
    program->image = image::make(inputs);
    return SUCCESS;
}

NVRTC_API Result nvrtcGetCUBINSize(Program* program, size_t* bytes) {
    if (!program) return INVALID_PROGRAM;
    // As NVRTC: a virtual architecture (compute_..) gives no cubin.
    *bytes = program->compiled_for_device ? program->image.size() : 0;
    return SUCCESS;
}

NVRTC_API Result nvrtcGetCUBIN(Program* program, char* cubin) {
    if (!program || !program->compiled_for_device) return INVALID_PROGRAM;
    memcpy(cubin, program->image.data(), program->image.size());
    return SUCCESS;
}

NVRTC_API Result nvrtcGetPTXSize(Program* program, size_t* bytes) {
    if (!program || program->image.empty()) return INVALID_PROGRAM;
    *bytes = program->image.size();
    return SUCCESS;
}

NVRTC_API Result nvrtcGetPTX(Program* program, char* ptx) {
    if (!program || program->image.empty()) return INVALID_PROGRAM;
    memcpy(ptx, program->image.data(), program->image.size());
    return SUCCESS;
}

NVRTC_API Result nvrtcGetProgramLogSize(Program* program, size_t* bytes) {
    if (!program) return INVALID_PROGRAM;
    *bytes = sizeof LOG;
    return SUCCESS;
}

NVRTC_API Result nvrtcGetProgramLog(Program* program, char* log) {
    if (!program) return INVALID_PROGRAM;
    memcpy(log, LOG, sizeof LOG);
    return SUCCESS;
}
