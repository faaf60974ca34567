// Double precision to float32 without losing on which side of a tree's thresholds a value lies.
#pragma once

#include <cstdint>
#include <vector>

namespace penstock {

// Of each column: thresholds `cuts`, ascending, no two alike, and `levels`, the float32 that stands for each, ascending, no
// two alike. For every double x that is not NaN, and every j: x <= cuts[j] exactly when narrowed(x) <= levels[j]. Where no
// threshold is near, narrowed(x) is the float32 nearest to x.
class Narrower {
 public:
  // offsets: where each column's cuts begin, and the end of the last. Throws std::invalid_argument for anything else.
  Narrower(std::vector<int32_t> offsets, std::vector<double> cuts, std::vector<float> levels);

  int32_t columns() const { return static_cast<int32_t>(columns_.size()); }

  // rows (count, columns), row after row. A finite value past float32's end becomes an infinity.
  void narrow(const double* rows, int64_t count, float* out) const;

 private:
  struct Column {
    int32_t first = 0, end = 0;
    uint32_t shift = 0;  // of the filter's hash
    int64_t filter = 0;  // its first word
  };

  float placed(const Column& column, double x, float nearest) const;

  std::vector<Column> columns_;
  std::vector<double> cuts_;
  std::vector<float> levels_;
  std::vector<uint64_t> filter_;  // of each column, a bit for each level's hash
};

// What a matrix of numbers holds that needs a closer look: how often each column is NaN, and the largest magnitude of all that
// is not, 0 where there is none.
struct Scan {
  std::vector<int64_t> missing;
  double largest = 0;
};

// rows (count, columns), row after row.
template <typename T>
Scan scan(const T* rows, int64_t count, int64_t columns);

}  // namespace penstock
