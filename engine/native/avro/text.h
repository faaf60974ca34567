// Whether bytes are UTF-8, and what number the bytes of a decimal are. Bounds: exactly the n bytes at p are read.
#pragma once

#include <cstdint>

namespace penstock {

// Shortest forms only, no surrogates, nothing past U+10FFFF.
bool is_utf8(const uint8_t* p, int64_t n);

// The big-endian two's complement number of n bytes, times 10^-scale, rounded once. False when there are no bytes, or more
// than `precision` (at most 38) digits.
bool decimal_value(const uint8_t* p, int64_t n, int32_t precision, int32_t scale, double& value);

}  // namespace penstock
