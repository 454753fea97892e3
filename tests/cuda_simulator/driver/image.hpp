// The placeholder image: what the stand-in NVRTC makes of any source, and the only thing the stand-in driver loads.
// It holds no code, for kernels are linked into the driver; it is there so that caches have something to keep, and
// its check digits are there so that a damaged one is refused.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace image {

inline const char MAGIC[] = "siluette simulated cubin ";

inline uint64_t fnv1a(const std::string& text) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (unsigned char byte : text) hash = (hash ^ byte) * 0x100000001b3ull;
    return hash;
}

inline std::string hexadecimal(uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

// Ends in a zero byte, which is counted in the image's size.
inline std::string make(const std::string& source_and_options) {
    const std::string body = MAGIC + hexadecimal(fnv1a(source_and_options));
    return body + " " + hexadecimal(fnv1a(body)) + std::string(1, '\0');
}

inline bool is_valid(const char* data) {
    if (strncmp(data, MAGIC, strlen(MAGIC)) != 0) return false;
    const size_t body_length = strlen(MAGIC) + 16;
    const std::string text(data, strnlen(data, body_length + 18));
    if (text.size() != body_length + 17) return false;
    const std::string body = text.substr(0, body_length);
    return text == body + " " + hexadecimal(fnv1a(body));
}

} // namespace image
