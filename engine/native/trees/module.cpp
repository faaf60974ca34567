// The Python face of the tree kernels: checks the arrays and keeps them alive, lets go of the interpreter lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <span>
#include <stdexcept>

#include "forest.h"
#include "narrow.h"
#include "predict.h"
#include "shap.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace penstock;

namespace {

constexpr int threads_max = 256;

template <typename T>
using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
std::vector<T> copied(const Column<T>& column) {
  return {column.data(), column.data() + column.shape(0)};
}

template <typename T>
std::span<const T> seen(const Column<T>& column) {
  return {column.data(), column.shape(0)};
}

struct Arrays {
  int32_t features, outputs;
  Column<int32_t> roots, feature;
  Column<float> threshold;
  Column<int32_t> set_index, yes, no;
  Column<uint8_t> missing_yes;
  Column<int32_t> leaf;
  Values leaf_values;
  Column<double> base_values;
  Column<int32_t> set_offsets;
  Column<float> set_values;

  std::shared_ptr<const Ready> made = nullptr;  // by the first kernel that asks, under the interpreter lock

  Forest forest() const {
    if (outputs < 1 || static_cast<int64_t>(leaf_values.shape(1)) != outputs)
      throw std::invalid_argument("leaf_values is no (leaves, outputs) array");
    Forest forest;
    forest.features = features;
    forest.outputs = outputs;
    forest.roots = seen(roots);
    forest.feature = seen(feature);
    forest.threshold = seen(threshold);
    forest.set_index = seen(set_index);
    forest.yes = seen(yes);
    forest.no = seen(no);
    forest.missing_yes = seen(missing_yes);
    forest.leaf = seen(leaf);
    forest.leaf_values = {leaf_values.data(), leaf_values.size()};
    forest.base_values = seen(base_values);
    forest.set_offsets = seen(set_offsets);
    forest.set_values = seen(set_values);
    return forest;
  }

  std::shared_ptr<const Ready> ready() {
    if (!made) {
      Forest views = forest();
      std::shared_ptr<const Ready> fresh;
      {
        nb::gil_scoped_release release;
        fresh = std::make_shared<const Ready>(std::move(views));
      }
      if (!made) made = std::move(fresh);
    }
    return made;
  }
};

nb::ndarray<nb::numpy, double> array_of(std::vector<double>&& values, std::vector<size_t> shape) {
  auto* kept = new std::vector<double>(std::move(values));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<double>*>(p); });
  return nb::ndarray<nb::numpy, double>(kept->data(), shape.size(), shape.data(), owner);
}

void check_rows(const Forest& forest, const Rows& rows, int threads) {
  if (static_cast<int64_t>(rows.shape(1)) != forest.features)
    throw std::invalid_argument("rows have another number of features than the forest");
  if (threads < 1 || threads > threads_max) throw std::invalid_argument("threads is not from 1 to 256");
}

struct ForestKernel {
  std::shared_ptr<const Ready> ready;

  nb::ndarray<nb::numpy, double> predict(Rows rows, int threads) const {
    const Forest& forest = ready->prepared.forest;
    check_rows(forest, rows, threads);
    const size_t count = rows.shape(0), outputs = forest.outputs;
    std::vector<double> scores(count * outputs);
    {
      nb::gil_scoped_release release;
      ready->predictor.predict(rows.data(), static_cast<int64_t>(count), threads, scores.data());
    }
    return array_of(std::move(scores), {count, outputs});
  }
};

nb::tuple explained(const Shap& shap, Rows rows, bool exact, int threads) {
  const Forest& forest = shap.forest();
  check_rows(forest, rows, threads);
  const size_t count = rows.shape(0), features = forest.features, outputs = forest.outputs;
  std::vector<double> values(count * features * outputs), scores(count * outputs);
  {
    nb::gil_scoped_release release;
    shap.explain(rows.data(), static_cast<int64_t>(count), exact, threads, values.data(), scores.data());
  }
  return nb::make_tuple(array_of(std::move(values), {count, features, outputs}), array_of(std::move(scores), {count, outputs}));
}

nb::object told(Scan scan) {
  auto* kept = new Scan(std::move(scan));
  nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<Scan*>(p); });
  return nb::make_tuple(nb::ndarray<nb::numpy, int64_t>(kept->missing.data(), {kept->missing.size()}, owner), kept->largest);
}

nb::tuple narrowed(const Narrower& narrower, Values rows) {
  if (static_cast<int64_t>(rows.shape(1)) != narrower.columns())
    throw std::invalid_argument("rows have another number of columns than there are thresholds for");
  const size_t count = rows.shape(0), columns = rows.shape(1);
  float* narrow = new float[count * columns];  // not filled with zeros first, as a vector would be
  nb::capsule owner(narrow, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  Scan found;
  {
    nb::gil_scoped_release release;
    found = narrower.narrow(rows.data(), static_cast<int64_t>(count), narrow);
  }
  return nb::make_tuple(nb::ndarray<nb::numpy, float>(narrow, {count, columns}, owner), told(std::move(found)));
}

template <typename T>
nb::object scanned(nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu> rows) {
  Scan found;
  {
    nb::gil_scoped_release release;
    found = scan(rows.data(), static_cast<int64_t>(rows.shape(0)), static_cast<int64_t>(rows.shape(1)));
  }
  return told(std::move(found));
}

}  // namespace

NB_MODULE(_trees, m) {
  nb::set_leak_warnings(false);  // a worker that ends while its compute thread works leaves objects behind
  m.doc() = "Tree ensembles: raw scores, exact SHAP values, and doubles narrowed to the float32 that they compare.";
  m.def("instruction_set", [] { return std::string(best_kernels().name); });

  m.def("scan", &scanned<float>, "rows"_a.noconvert());
  m.def("scan", &scanned<double>, "rows"_a.noconvert());

  nb::class_<Narrower>(m, "Narrower")
      .def(
          "__init__",
          [](Narrower* self, Column<int32_t> offsets, Column<double> cuts, Column<float> levels) {
            new (self) Narrower(copied(offsets), copied(cuts), copied(levels));
          },
          "offsets"_a, "cuts"_a, "levels"_a)
      .def("narrow", &narrowed, "rows"_a);

  nb::class_<Arrays>(m, "Arrays")
      .def(
          "__init__",
          [](Arrays* self, int features, int outputs, Column<int32_t> roots, Column<int32_t> feature, Column<float> threshold,
             Column<int32_t> set_index, Column<int32_t> yes, Column<int32_t> no, Column<uint8_t> missing_yes,
             Column<int32_t> leaf, Values leaf_values, Column<double> base_values, Column<int32_t> set_offsets,
             Column<float> set_values) {
            new (self) Arrays{features, outputs,     roots, feature,     threshold,   set_index,   yes,
                              no,       missing_yes, leaf,  leaf_values, base_values, set_offsets, set_values};
          },
          "features"_a, "outputs"_a, "roots"_a, "feature"_a, "threshold"_a, "set_index"_a, "yes"_a, "no"_a, "missing_yes"_a,
          "leaf"_a, "leaf_values"_a, "base_values"_a, "set_offsets"_a, "set_values"_a);

  nb::class_<ForestKernel>(m, "ForestKernel")
      .def(
          "__init__", [](ForestKernel* self, Arrays& arrays) { new (self) ForestKernel{arrays.ready()}; }, nb::keep_alive<1, 2>(),
          "arrays"_a)
      .def("predict", &ForestKernel::predict, "rows"_a, "threads"_a = 1);

  nb::class_<Shap>(m, "ShapKernel")
      .def(
          "__init__",
          [](Shap* self, Arrays& arrays, Column<double> share, Rows background, int64_t table_bytes_max, int threads) {
            std::shared_ptr<const Ready> ready = arrays.ready();
            if (background.shape(0) && static_cast<int64_t>(background.shape(1)) != ready->prepared.forest.features)
              throw std::invalid_argument("the background has another number of features");
            std::vector<float> rows(background.data(), background.data() + background.size());
            if (threads < 1 || threads > threads_max) throw std::invalid_argument("threads is not from 1 to 256");
            nb::gil_scoped_release release;
            new (self) Shap(std::move(ready), seen(share), rows, table_bytes_max, threads);
          },
          nb::keep_alive<1, 2>(), "arrays"_a, "share"_a, "background"_a, "table_bytes_max"_a, "threads"_a)
      .def("shap_values", &explained, "rows"_a, "exact"_a = false, "threads"_a = 1)
      .def_prop_ro("expected",
                   [](const Shap& self) {  // cast here: a property would tie the array, which has an owner, to the kernel
                     return nb::cast(array_of(std::vector<double>(self.expected()), {self.expected().size()}));
                   })
      .def_prop_ro("table_bytes", &Shap::table_bytes)
      .def_prop_ro("tabled_trees",
                   [](const Shap& self) {
                     int64_t count = 0;
                     for (size_t t = 0; t < self.forest().roots.size(); ++t) count += self.tabled(t);
                     return count;
                   })
      .def_prop_ro("digest", &Shap::digest);
}
