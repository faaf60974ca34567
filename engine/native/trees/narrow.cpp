#include "narrow.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <type_traits>

namespace penstock {
namespace {

constexpr uint32_t bits_per_level = 32;  // one value in 32 that is no level passes a filter
constexpr uint32_t log2_bits_max = 26;
constexpr uint32_t by_first = 2654435769u, by_second = 2246822519u, salt_by = 2654435761u;

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

bool has(const uint64_t* filter, uint32_t bit) { return filter[bit / 64] >> (bit % 64) & 1; }

// Counts what rows hold, column by column.
template <typename T>
class Tally {
 public:
  Tally(size_t columns, int64_t rows) : missing_(columns, 0), largest_(columns, T{0}) {
    if (rows > std::numeric_limits<int32_t>::max()) throw std::invalid_argument("there are too many rows");
  }

  void add(const T* row) {
    const size_t columns = missing_.size();
    Count* missing = missing_.data();
    T* largest = largest_.data();
    for (size_t f = 0; f < columns; ++f) {  // without a branch, so that columns are taken side by side
      const T value = std::abs(row[f]);
      missing[f] += value != value;
      largest[f] = value > largest[f] ? value : largest[f];
    }
  }

  Scan scan() const {
    Scan found;
    found.missing.assign(missing_.begin(), missing_.end());
    for (const T value : largest_) found.largest = std::max(found.largest, static_cast<double>(value));
    return found;
  }

 private:
  using Count = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;  // as wide as a number: that is what lets them side by side
  std::vector<Count> missing_;
  std::vector<T> largest_;
};

void put(std::vector<uint64_t>& filter, uint32_t bit) { filter[bit / 64] |= uint64_t{1} << (bit % 64); }

}  // namespace

Narrower::Narrower(std::vector<int32_t> offsets, std::vector<double> cuts, std::vector<float> levels)
    : cuts_(std::move(cuts)), levels_(std::move(levels)) {
  if (offsets.size() < 2 || offsets.front() != 0 || offsets.back() != static_cast<int64_t>(cuts_.size()) ||
      cuts_.size() != levels_.size() || !std::is_sorted(offsets.begin(), offsets.end()))
    throw std::invalid_argument("offsets, cuts and levels do not fit each other");
  uint32_t log2_bits = 6;
  while (log2_bits < log2_bits_max && (uint64_t{1} << log2_bits) < cuts_.size() * bits_per_level) ++log2_bits;
  shift_ = 32 - log2_bits;
  filter_.resize((size_t{1} << log2_bits) / 64);
  second_filter_.resize(filter_.size());
  for (size_t f = 0; f + 1 < offsets.size(); ++f) {
    const Column column{offsets[f], offsets[f + 1], static_cast<uint32_t>(f) * salt_by};
    bool all_searched = false;
    for (int32_t j = column.first; j < column.end; ++j) {
      const bool ascending = j == column.first || (cuts_[j - 1] < cuts_[j] && levels_[j - 1] < levels_[j]);
      if (!ascending || std::isnan(cuts_[j]) || std::isnan(levels_[j]))
        throw std::invalid_argument("cuts or levels are not ascending");
      // Where a level is not the float32 nearest to its cut, values near it are moved that are rounded onto no level.
      all_searched |= static_cast<float>(cuts_[j]) != levels_[j];
      for (const float zero : {0.0f, -0.0f}) {
        const uint32_t bits = bits_of(levels_[j] == 0.0f ? zero : levels_[j]) + column.salt;
        put(filter_, bits * by_first >> shift_);
        put(second_filter_, bits * by_second >> shift_);
      }
    }
    if (all_searched) searched_.push_back(static_cast<int32_t>(f));
    columns_.push_back(column);
    salts_.push_back(column.salt);
  }
}

// Whether a value that has passed the first filter passes the second: a search takes longer than to look once more.
bool Narrower::is_level(const Column& column, float value) const {
  return has(second_filter_.data(), (bits_of(value) + column.salt) * by_second >> shift_);
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

Scan Narrower::narrow(const double* rows, int64_t count, float* out) const {
  Tally<float> tally(columns_.size(), count);
  const size_t width = columns_.size();
  const uint32_t* salts = salts_.data();
  const uint64_t* filter = filter_.data();
  const uint32_t shift = shift_;
  for (int64_t r = 0; r < count; ++r, rows += width, out += width) {
    for (size_t f = 0; f < width; ++f) out[f] = static_cast<float>(rows[f]);
    tally.add(out);
    for (size_t f = 0; f < width; ++f) {
      // A value that is rounded onto no level keeps its side of every threshold.
      if (has(filter, (bits_of(out[f]) + salts[f]) * by_first >> shift) && is_level(columns_[f], out[f]))
        out[f] = placed(columns_[f], rows[f], out[f]);
    }
    for (const int32_t f : searched_) out[f] = placed(columns_[f], rows[f], static_cast<float>(rows[f]));
  }
  return tally.scan();
}

template <typename T>
Scan scan(const T* rows, int64_t count, int64_t columns) {
  Tally<T> tally(static_cast<size_t>(columns), count);
  for (int64_t r = 0; r < count; ++r, rows += columns) tally.add(rows);
  return tally.scan();
}

template Scan scan(const float*, int64_t, int64_t);
template Scan scan(const double*, int64_t, int64_t);

}  // namespace penstock
