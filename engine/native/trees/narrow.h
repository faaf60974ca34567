// Double precision to float32 without losing on which side of a tree's thresholds a value lies.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock {

// What a matrix of numbers holds that needs a closer look: how often each column is NaN, and the largest magnitude of all that
// is not, 0 where there is none.
struct Scan {
  std::vector<int64_t> missing;
  double largest = 0;
};

// Of each column: thresholds `cuts`, ascending, no two alike, and `levels`, the float32 that stands for each, ascending, no
// two alike. For every double x that is not NaN, and every j: x <= cuts[j] exactly when narrowed(x) <= levels[j]. Where no
// threshold is near, narrowed(x) is the float32 nearest to x.
class Narrower {
 public:
  // offsets: where each column's cuts begin, and the end of the last. Throws std::invalid_argument for anything else.
  Narrower(std::vector<int32_t> offsets, std::vector<double> cuts, std::vector<float> levels);

  int32_t columns() const { return static_cast<int32_t>(columns_.size()); }

  // rows (count, columns), row after row. A finite value past float32's end becomes an infinity. What is told of the rows
  // is told of their nearest float32. Throws std::invalid_argument for more rows than 2^31.
  Scan narrow(const double* rows, int64_t count, float* out) const;

 private:
  struct Column {
    int32_t first = 0, end = 0;
    uint32_t salt = 0;  // tells its levels from those of other columns in the filters
  };

  bool is_level(const Column& column, float value) const;
  float placed(const Column& column, double x, float nearest) const;

  std::vector<Column> columns_;
  std::vector<uint32_t> salts_;    // of the columns, side by side
  std::vector<int32_t> searched_;  // columns in which every value is looked up
  std::vector<double> cuts_;
  std::vector<float> levels_;
  uint32_t shift_ = 0;                            // of the hashes
  std::vector<uint64_t> filter_, second_filter_;  // a bit for each level's hash, and for another hash of it
};

// rows (count, columns), row after row.
template <typename T>
Scan scan(const T* rows, int64_t count, int64_t columns);

}  // namespace penstock
