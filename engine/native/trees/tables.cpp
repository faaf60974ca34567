#include "tables.h"

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

int ones(uint32_t v) { return __builtin_popcount(v); }

// Shapley values of a leaf of value 1 by what the row satisfies, (2^D, D), against a background of which weight[z] satisfies z.
// Only those matter that satisfy all that the row does not. Of the a features that the row alone satisfies each gets
// (a - 1)! b! / (a + b)!, of the b that the background alone satisfies each loses a! (b - 1)! / (a + b)!; as b is all that the
// row does not satisfy and a all that the background does not, sums over subsets, sorted by a, say everything.
std::vector<double> leaf_shapley(int32_t features, const std::vector<double>& weight) {
  const uint32_t size = 1u << features, whole = size - 1;
  const int32_t stride = features + 1;
  std::vector<double> by_count(static_cast<size_t>(size) * stride, 0.0);
  for (uint32_t z = 0; z < size; ++z) by_count[static_cast<size_t>(~z & whole) * stride + ones(~z & whole)] += weight[z];
  for (int32_t f = 0; f < features; ++f)
    for (uint32_t set = 0; set < size; ++set)
      if (set >> f & 1)
        for (int32_t a = 0; a <= features; ++a)
          by_count[static_cast<size_t>(set) * stride + a] += by_count[static_cast<size_t>(set ^ (1u << f)) * stride + a];
  std::vector<double> gain(static_cast<size_t>(stride) * stride, 0.0), loss(gain);
  for (int32_t a = 0; a <= features; ++a)
    for (int32_t b = 0; a + b <= features; ++b) {
      double choose = 1;  // (a + b)! / (a! b!)
      for (int32_t i = 1; i <= b; ++i) choose = choose * (a + i) / i;
      if (a > 0) gain[a * stride + b] = 1 / (choose * a);
      if (b > 0) loss[a * stride + b] = 1 / (choose * b);
    }
  std::vector<double> phi(static_cast<size_t>(size) * features, 0.0);
  for (uint32_t o = 0; o < size; ++o) {
    const int32_t b = features - ones(o);
    const double* all = by_count.data() + static_cast<size_t>(o) * stride;
    double lost = 0;
    for (int32_t a = 0; a <= features - b; ++a) lost += loss[a * stride + b] * all[a];
    for (int32_t f = 0; f < features; ++f) {
      double& out = phi[static_cast<size_t>(o) * features + f];
      if (!(o >> f & 1)) {
        out = -lost;
        continue;
      }
      const double* without = by_count.data() + static_cast<size_t>(o ^ (1u << f)) * stride;
      for (int32_t a = 1; a <= features - b; ++a) out += gain[a * stride + b] * (all[a] - without[a]);
    }
  }
  return phi;
}

// What a row satisfies of the features of the leaf on that side, by code. Bit f of a code is for the tests of feature f above
// the place; the last one is for the test there.
std::vector<uint32_t> satisfied_by_code(const LeafTable& table, bool side) {
  const int32_t last = table.bits - 1;
  std::vector<uint32_t> satisfied(size_t{1} << table.bits);
  for (uint32_t code = 0; code < satisfied.size(); ++code) {
    const bool here = (code >> last & 1) == static_cast<uint32_t>(side);
    const uint32_t above = code & ((1u << last) - 1), own = 1u << table.own;
    if (table.own == last) satisfied[code] = here ? above | own : above;
    else satisfied[code] = here ? above : above & ~own;
  }
  return satisfied;
}

}  // namespace

LeafTables::LeafTables(const Prepared& prepared, const std::vector<Shares>& shares, const Background& background,
                       int32_t bits_max, int64_t bytes_max, int threads)
    : prepared_(prepared), floats_each_(shares.empty() ? 2 : 1), first_(prepared.trees.size(), 0), count_(first_.size(), 0) {
  std::vector<std::pair<int64_t, size_t>> sizes;
  for (size_t t = 0; t < prepared_.trees.size(); ++t)
    if (const int64_t bytes = size_of(t, bits_max); bytes > 0) sizes.emplace_back(bytes, t);
  std::sort(sizes.begin(), sizes.end());
  std::vector<size_t> held;
  int64_t floats = 0;
  for (const auto& [bytes, t] : sizes) {
    if (bytes > bytes_max - bytes_) break;
    bytes_ += bytes;
    plan(t, floats);
    held.push_back(t);
  }
  values_.assign(static_cast<size_t>(floats), 0.0f);
  if (exact()) rests_.assign(values_.size(), 0.0f);
  in_parallel(static_cast<int64_t>(held.size()), threads, [&](int64_t i) {
    const size_t t = held[i];
    const std::vector<double> weights = shares.empty() ? counted(t, background) : std::vector<double>{};
    const double* by_code = weights.data();
    for (const LeafTable* table = tables_.data() + first_[t]; table != tables_.data() + first_[t] + count_[t]; ++table) {
      fill(t, *table, shares.empty() ? nullptr : &shares[t], by_code);
      if (shares.empty()) by_code += int64_t{1} << table->bits;
    }
  });
}

// Bytes that plan() and fill() would take; 0 where the tree has no tests, or too many different features on a path.
int64_t LeafTables::size_of(size_t t, int32_t bits_max) const {
  const Tree& tree = prepared_.trees[t];
  const auto outputs = static_cast<int64_t>(prepared_.outputs[t].size());
  std::vector<int32_t> distinct(tree.places());  // features tested here and above
  int64_t bytes = 0;
  for (int32_t i = 0; i < tree.places(); ++i) {
    const int32_t above = tree.above[i] < 0 ? 0 : distinct[tree.above[i]], bits = above + 1;
    distinct[i] = above + (tree.earlier[i] < 0 ? 1 : 0);
    if (tree.yes[i] >= 0 && tree.no[i] >= 0) continue;
    if (bits > bits_max) return 0;
    const int64_t slots = distinct[i], floats = table_rows(bits) * slots * outputs * floats_each_;
    bytes += static_cast<int64_t>(sizeof(LeafTable) + sizeof(int32_t) * (bits + slots) + sizeof(float) * floats);
  }
  return bytes;
}

// A table for each place with a leaf below. Tests above are grouped by feature; the one at the place is on its own, and last,
// for the leaves differ in it.
void LeafTables::plan(size_t t, int64_t& floats) {
  const Tree& tree = prepared_.trees[t];
  const Test* tests = prepared_.tests.data() + prepared_.first_test[t];
  first_[t] = static_cast<int64_t>(tables_.size());
  std::vector<std::pair<int32_t, int32_t>> path;  // slot, the last of its tests above and its side
  for (int32_t place = 0; place < tree.places(); ++place) {
    if (tree.yes[place] >= 0 && tree.no[place] >= 0) continue;
    path.clear();
    for (int32_t at = place; tree.above[at] >= 0; at = tree.above[at])
      path.emplace_back(tests[tree.above[at]].slot, tree.above[at] << 1 | tree.side[at]);
    std::sort(path.begin(), path.end());  // places are in preorder: of a feature's tests the lowest comes last
    LeafTable table{static_cast<int32_t>(bits_.size()), 0, static_cast<int32_t>(slots_.size()), 0, -1, floats};
    for (size_t i = 0; i < path.size(); ++i) {
      if (i + 1 < path.size() && path[i + 1].first == path[i].first) continue;
      bits_.push_back(tree.places() + path[i].second);
      if (path[i].first == tests[place].slot) table.own = static_cast<int32_t>(slots_.size()) - table.first_feature;
      slots_.push_back(path[i].first);
    }
    bits_.push_back(place);
    table.bits = static_cast<int32_t>(bits_.size()) - table.first_bit;
    if (table.own < 0) {
      table.own = table.bits - 1;
      slots_.push_back(tests[place].slot);
    }
    table.features = static_cast<int32_t>(slots_.size()) - table.first_feature;
    floats += table_rows(table.bits) * table.features * static_cast<int64_t>(prepared_.outputs[t].size());
    tables_.push_back(table);
  }
  count_[t] = static_cast<int32_t>(static_cast<int64_t>(tables_.size()) - first_[t]);
}

// How much of the background answers each code, (2^bits,) for each of the tree's tables.
std::vector<double> LeafTables::counted(size_t t, const Background& background) const {
  const LeafTable *begin = tables_.data() + first_[t], *end = begin + count_[t];
  int64_t codes = 0;
  for (const LeafTable* table = begin; table != end; ++table) codes += int64_t{1} << table->bits;
  std::vector<double> weights(static_cast<size_t>(codes), 0.0);
  std::vector<uint64_t> masks(static_cast<size_t>(prepared_.trees[t].places()) * Prepared::masks_each);
  for (int64_t first = 0; first < background.rows; first += block) {
    prepared_.decide(best_kernels(), t, background.columns[first / block].data(), masks.data());
    prepared_.follow(t, masks.data());
    double* weight = weights.data();
    for (const LeafTable* table = begin; table != end; weight += int64_t{1} << table->bits, ++table) {
      const int32_t* bits = bits_.data() + table->first_bit;
      for (int64_t c = 0; c < std::min<int64_t>(block, background.rows - first); ++c) {
        uint32_t code = 0;
        for (int32_t b = 0; b < table->bits; ++b) code |= static_cast<uint32_t>(masks[bits[b]] >> c & 1) << b;
        ++weight[code];
      }
    }
  }
  for (double& weight : weights) weight /= static_cast<double>(background.rows);
  return weights;
}

// How much of the training data satisfies each set of the features of the leaf on that side: (2^features,).
std::vector<double> LeafTables::shared(size_t t, const LeafTable& table, const Shares& shares, bool side) const {
  const int32_t places = prepared_.trees[t].places();
  const auto share_of = [&](int32_t place, bool yes) { return (yes ? shares.yes : shares.no)[place]; };
  std::vector<double> weight(size_t{1} << table.features, 1.0);
  for (int32_t f = 0; f < table.features; ++f) {
    double share = f == table.own ? share_of(place_of(table), side) : 1.0;
    if (f < table.bits - 1) {
      const int32_t last = bits_[table.first_bit + f] - places;
      share *= shares.before[last >> 1] * share_of(last >> 1, last & 1);
    }
    for (size_t set = 0; set < weight.size(); ++set) weight[set] *= set >> f & 1 ? share : 1 - share;
  }
  return weight;
}

void LeafTables::fill(size_t t, const LeafTable& table, const Shares* shares, const double* by_code) {
  const Tree& tree = prepared_.trees[t];
  const int64_t size = table_rows(table.bits);
  const int32_t place = place_of(table);
  std::vector<double> sums(static_cast<size_t>(size) * table.features * prepared_.outputs[t].size(), 0.0);
  for (const bool side : {true, false}) {
    const int32_t child = side ? tree.yes[place] : tree.no[place];
    if (child >= 0) continue;
    const std::vector<uint32_t> satisfied = satisfied_by_code(table, side);
    std::vector<double> weight(size_t{1} << table.features, 0.0);
    if (shares != nullptr) weight = shared(t, table, *shares, side);
    else
      for (size_t code = 0; code < satisfied.size(); ++code) weight[satisfied[code]] += by_code[code];
    const std::vector<double> phi = leaf_shapley(table.features, weight);
    const double* values = prepared_.forest.value(tree.leaf_row[~child]);
    double* out = sums.data();
    for (int32_t k : prepared_.outputs[t])
      for (int32_t f = 0; f < table.features; ++f, out += size)
        for (size_t code = 0; code < satisfied.size(); ++code)
          out[code] += values[k] * phi[static_cast<size_t>(satisfied[code]) * table.features + f];
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const auto value = static_cast<float>(sums[i]);
    values_[table.first + i] = value;
    if (exact()) rests_[table.first + i] = static_cast<float>(sums[i] - static_cast<double>(value));
  }
}

Lookup LeafTables::look_up(size_t t, size_t output, int32_t from, int32_t count, const uint64_t* masks, int32_t rows) const {
  return {tables_.data() + first_[t] + from,
          count,
          static_cast<int32_t>(output),
          bits_.data(),
          slots_.data(),
          values_.data(),
          rests_.data(),
          masks,
          rows};
}

uint64_t LeafTables::digest() const {
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const auto* floats : {&values_, &rests_}) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(floats->data());
    for (size_t i = 0; i < floats->size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  }
  return hash;
}

}  // namespace penstock
