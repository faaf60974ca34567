#include "text.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace penstock {
namespace {

// Tens to the power that a double holds exactly.
constexpr double exact_tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

struct Magnitude {
  uint64_t high = 0, low = 0;
};

// The quotient replaces the magnitude, the remainder is returned: schoolbook, 32 bits at a time.
uint64_t divide(Magnitude& m, uint32_t by) {
  uint64_t rest = 0;
  uint32_t digits[4] = {static_cast<uint32_t>(m.high >> 32), static_cast<uint32_t>(m.high), static_cast<uint32_t>(m.low >> 32),
                        static_cast<uint32_t>(m.low)};
  for (uint32_t& digit : digits) {
    const uint64_t part = rest << 32 | digit;
    digit = static_cast<uint32_t>(part / by);
    rest = part % by;
  }
  m.high = static_cast<uint64_t>(digits[0]) << 32 | digits[1];
  m.low = static_cast<uint64_t>(digits[2]) << 32 | digits[3];
  return rest;
}

}  // namespace

bool is_utf8(const uint8_t* p, int64_t n) {
  int64_t i = 0;
  while (i < n) {
    if (i + 8 <= n) {
      uint64_t word;
      std::memcpy(&word, p + i, 8);
      if (!(word & 0x8080808080808080u)) {
        i += 8;
        continue;
      }
    }
    const uint8_t lead = p[i];
    if (lead < 0x80) {
      ++i;
      continue;
    }
    int extra;
    uint32_t least, code;
    if ((lead & 0xE0) == 0xC0) {
      extra = 1, least = 0x80, code = lead & 0x1F;
    } else if ((lead & 0xF0) == 0xE0) {
      extra = 2, least = 0x800, code = lead & 0x0F;
    } else if ((lead & 0xF8) == 0xF0) {
      extra = 3, least = 0x10000, code = lead & 0x07;
    } else {
      return false;
    }
    if (i + extra >= n) return false;
    for (int k = 1; k <= extra; ++k) {
      if ((p[i + k] & 0xC0) != 0x80) return false;
      code = (code << 6) | (p[i + k] & 0x3F);
    }
    if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return false;
    i += extra + 1;
  }
  return true;
}

bool decimal_value(const uint8_t* p, int64_t n, int32_t precision, int32_t scale, double& value) {
  if (n <= 0) return false;
  const bool negative = p[0] & 0x80;
  const uint8_t sign = negative ? 0xFF : 0;
  while (n > 1 && p[0] == sign) ++p, --n;  // sign extension; the true first byte may be taken for it, which changes nothing
  if (n > 16 || (n == 16 && ((p[0] ^ sign) & 0x80))) return false;  // past 2^127, so past 38 digits
  Magnitude m{negative ? ~uint64_t{0} : 0, negative ? ~uint64_t{0} : 0};
  for (int64_t i = 0; i < n; ++i) {
    m.high = m.high << 8 | m.low >> 56;
    m.low = m.low << 8 | p[i];
  }
  if (negative) {
    m.low = ~m.low + 1;
    m.high = ~m.high + (m.low == 0);
  }
  if (m.high == 0 && m.low <= uint64_t{1} << 53 && scale <= 22) {
    double magnitude = static_cast<double>(m.low);
    if (precision < 16 && magnitude >= exact_tens[precision]) return false;
    magnitude /= exact_tens[scale];  // both are exact: rounded once
    value = negative ? -magnitude : magnitude;
    return true;
  }
  char text[64];
  char* end = text + 48;
  char* begin = end;
  do *--begin = static_cast<char>('0' + divide(m, 10));
  while (m.high | m.low);
  if (end - begin > precision) return false;
  if (negative) *--begin = '-';
  std::snprintf(end, 16, "e-%d", scale);
  value = std::strtod(begin, nullptr);
  return true;
}

}  // namespace penstock
