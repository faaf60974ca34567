#include "narrow.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace penstock {
namespace {

constexpr uint32_t bits_per_level = 32;  // one value in 32 that is no level is searched for in vain
constexpr uint32_t log2_bits_max = 24;

uint32_t hashed(float value, uint32_t shift) {
  value += 0.0f;  // one zero
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits * 2654435769u) >> shift;
}

}  // namespace

Narrower::Narrower(std::vector<int32_t> offsets, std::vector<double> cuts, std::vector<float> levels)
    : cuts_(std::move(cuts)), levels_(std::move(levels)) {
  if (offsets.size() < 2 || offsets.front() != 0 || offsets.back() != static_cast<int64_t>(cuts_.size()) ||
      cuts_.size() != levels_.size() || !std::is_sorted(offsets.begin(), offsets.end()))
    throw std::invalid_argument("offsets, cuts and levels do not fit each other");
  for (size_t f = 0; f + 1 < offsets.size(); ++f) {
    Column column;
    column.first = offsets[f];
    column.end = offsets[f + 1];
    column.filter = static_cast<int64_t>(filter_.size());
    bool all_searched = false;
    uint32_t log2_bits = 6;
    while (log2_bits < log2_bits_max && (1u << log2_bits) < static_cast<uint64_t>(column.end - column.first) * bits_per_level)
      ++log2_bits;
    column.shift = 32 - log2_bits;
    filter_.resize(filter_.size() + (size_t{1} << log2_bits) / 64);
    for (int32_t j = column.first; j < column.end; ++j) {
      const bool ascending = j == column.first || (cuts_[j - 1] < cuts_[j] && levels_[j - 1] < levels_[j]);
      if (!ascending || std::isnan(cuts_[j]) || std::isnan(levels_[j]))
        throw std::invalid_argument("cuts or levels are not ascending");
      all_searched |= static_cast<float>(cuts_[j]) != levels_[j];
      const uint32_t bit = hashed(levels_[j], column.shift);
      filter_[column.filter + bit / 64] |= uint64_t{1} << (bit % 64);
    }
    // Where a level is not the float32 nearest to its cut, values near it are moved that are rounded onto no level.
    if (all_searched) std::fill(filter_.begin() + column.filter, filter_.end(), ~uint64_t{0});
    columns_.push_back(column);
  }
}

float Narrower::placed(const Column& column, double x, float nearest) const {
  if (std::isnan(x)) return nearest;
  const double* first = cuts_.data() + column.first;
  const double* end = cuts_.data() + column.end;
  const int32_t below = column.first + static_cast<int32_t>(std::lower_bound(first, end, x) - first);  // cuts before x
  constexpr float infinite = std::numeric_limits<float>::infinity();
  if (below > column.first) nearest = std::max(nearest, std::nextafter(levels_[below - 1], infinite));
  if (below < column.end) nearest = std::min(nearest, levels_[below]);
  return nearest;
}

void Narrower::narrow(const double* rows, int64_t count, float* out) const {
  const size_t width = columns_.size();
  const Column* columns = columns_.data();
  const uint64_t* filter = filter_.data();
  for (int64_t r = 0; r < count; ++r, rows += width, out += width) {
    for (size_t f = 0; f < width; ++f) out[f] = static_cast<float>(rows[f]);
    for (size_t f = 0; f < width; ++f) {
      // A value that is rounded onto no level keeps its side of every threshold.
      const uint32_t bit = hashed(out[f], columns[f].shift);
      if (filter[columns[f].filter + bit / 64] >> (bit % 64) & 1) out[f] = placed(columns[f], rows[f], out[f]);
    }
  }
}

template <typename T>
Scan scan(const T* rows, int64_t count, int64_t columns) {
  Scan found;
  found.missing.assign(static_cast<size_t>(columns), 0);
  std::vector<T> largest(static_cast<size_t>(columns), T{0});
  int64_t* missing = found.missing.data();
  T* most = largest.data();
  for (int64_t r = 0; r < count; ++r, rows += columns) {
    for (int64_t f = 0; f < columns; ++f) {  // without a branch, so that columns are taken side by side
      const T value = std::abs(rows[f]);
      missing[f] += value != value;
      most[f] = value > most[f] ? value : most[f];
    }
  }
  for (const T value : largest) found.largest = std::max(found.largest, static_cast<double>(value));
  return found;
}

template Scan scan(const float*, int64_t, int64_t);
template Scan scan(const double*, int64_t, int64_t);

}  // namespace penstock
