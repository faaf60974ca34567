// The Python face of the Avro kernels: checks shapes, holds references, lets go of the interpreter lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>

#include "encode.h"
#include "program.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace penstock;

namespace {

template <typename T>
using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

using NodeTuple = std::tuple<int, int, int, int, int, int, int, int>;

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(what);
}

Program make_program(const std::vector<NodeTuple>& nodes, const std::vector<std::tuple<int, double>>& defaults,
                     const std::vector<std::vector<nb::bytes>>& tables, std::vector<std::vector<double>> enums,
                     const std::vector<std::tuple<int, int>>& decimals, int columns, int64_t items_max, double unseen) {
  Program program;
  for (const auto& [kind, column, size, table, first_child, child_count, first_default, default_count] : nodes) {
    require(kind >= 0 && kind <= static_cast<int>(Kind::skip), "Avro program: unknown kind");
    program.nodes.push_back(
        {static_cast<Kind>(kind), column, size, table, first_child, child_count, first_default, default_count});
  }
  for (const auto& [column, value] : defaults) program.defaults.push_back({column, value});
  for (const auto& table : tables) {
    std::vector<std::string> names;
    for (const nb::bytes& name : table) names.emplace_back(name.c_str(), name.size());
    program.tables.emplace_back(names);
  }
  program.enums = std::move(enums);
  for (const auto& [precision, scale] : decimals) program.decimals.push_back({precision, scale});
  program.columns = columns;
  program.items_max = items_max;
  program.unseen = unseen;
  program.check();
  return program;
}

struct Fault {
  size_t payload;
  Verdict verdict;
};

// The bytes of an item of a list; data is null, and no error is set, when it is no bytes. Only the limited API is used: with it
// one wheel serves every Python from 3.12 on.
Payload bytes_of(PyObject* item) {
  if (!PyBytes_Check(item)) return {nullptr, 0};
  return {reinterpret_cast<const uint8_t*>(PyBytes_AsString(item)), PyBytes_Size(item)};
}

template <typename T>
nb::tuple read_as(const Program& program, nb::list payloads, int64_t skip, bool refuse_empty) {
  const size_t count = payloads.size();
  std::vector<Payload> found(count);
  std::vector<nb::object> held(count);  // another thread may change the list while the lock is let go
  for (size_t i = 0; i < count; ++i) {
    held[i] = nb::borrow(PyList_GetItem(payloads.ptr(), static_cast<Py_ssize_t>(i)));
    found[i] = bytes_of(held[i].ptr());
    if (found[i].data == nullptr) throw nb::type_error("every payload must be bytes");
  }
  const size_t columns = static_cast<size_t>(program.columns);
  std::unique_ptr<T[]> matrix(new T[count * columns]);  // every row is written, so not first set to zero
  std::vector<Fault> faults;
  {
    nb::gil_scoped_release release;
    for (size_t i = 0; i < count; ++i) {
      const Verdict verdict = read_payload(program, found[i], skip, refuse_empty, matrix.get() + i * columns);
      if (verdict.status != Status::ok) faults.push_back({i, verdict});
    }
  }
  nb::list named;
  for (const Fault& fault : faults)
    named.append(nb::make_tuple(fault.payload, static_cast<int>(fault.verdict.status), fault.verdict.at, fault.verdict.node));
  nb::capsule owner(matrix.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  T* data = matrix.release();
  return nb::make_tuple(nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(data, {count, columns}, owner)), named);
}

// Whether every payload is bytes, none longer than bytes_max, and all begin with the same header_bytes bytes.
bool alike(nb::list payloads, size_t header_bytes, size_t bytes_max) {
  const uint8_t* first = nullptr;
  for (size_t i = 0; i < payloads.size(); ++i) {
    const Payload payload = bytes_of(PyList_GetItem(payloads.ptr(), static_cast<Py_ssize_t>(i)));
    const size_t length = static_cast<size_t>(payload.length);
    if (payload.data == nullptr || length > bytes_max || length < header_bytes) return false;
    if (first == nullptr) first = payload.data;
    if (std::memcmp(first, payload.data, header_bytes) != 0) return false;
  }
  return true;
}

// The length of the longest; an item that is None counts as empty.
size_t longest_of(nb::list payloads) {
  size_t most = 0;
  for (size_t i = 0; i < payloads.size(); ++i) {
    PyObject* item = PyList_GetItem(payloads.ptr(), static_cast<Py_ssize_t>(i));
    if (item == Py_None) continue;
    const Payload payload = bytes_of(item);
    if (payload.data == nullptr) throw nb::type_error("every item must be bytes or None");
    most = std::max(most, static_cast<size_t>(payload.length));
  }
  return most;
}

nb::list payloads_of(const Messages& messages) {
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(messages.count())));
  if (!list.is_valid()) throw nb::python_error();
  for (size_t i = 0; i < messages.count(); ++i) {
    const std::string_view message = messages.at(i);
    PyObject* payload = PyBytes_FromStringAndSize(message.data(), static_cast<Py_ssize_t>(message.size()));
    if (payload == nullptr) throw nb::python_error();
    PyList_SetItem(list.ptr(), static_cast<Py_ssize_t>(i), payload);
  }
  return nb::borrow<nb::list>(list);
}

Sources sources_of(const Column<int32_t>& partitions, const Column<int64_t>& offsets, const Column<int64_t>& timestamps) {
  require(partitions.shape(0) == offsets.shape(0) && offsets.shape(0) == timestamps.shape(0), "source columns differ in length");
  return {partitions.data(), offsets.data(), timestamps.data(), static_cast<int64_t>(offsets.shape(0))};
}

std::string optional_piece(const std::optional<std::string>& text) {
  return text ? avro_long(1) + avro_string(*text) : avro_long(0);
}

// The strings of a penstock.engine.codec.lineage.Lineage under these names, encoded, one behind the other.
std::string lineage_piece(const nb::object& lineage, std::initializer_list<const char*> names) {
  std::string piece;
  for (const char* name : names) piece += avro_string(nb::cast<std::string>(lineage.attr(name)));
  return piece;
}

std::string text_of(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }

}  // namespace

NB_MODULE(_avro, m) {
  nb::set_leak_warnings(false);  // a worker that ends while its compute thread works leaves objects behind
  m.doc() = "Avro columns: payloads to matrices, and results to payloads.";

  m.def("alike", &alike, "payloads"_a, "header_bytes"_a, "bytes_max"_a);
  m.def("longest", &longest_of, "payloads"_a);

  nb::class_<Program>(m, "Program")
      .def(
          "__init__",
          [](Program* self, const std::vector<NodeTuple>& nodes, const std::vector<std::tuple<int, double>>& defaults,
             const std::vector<std::vector<nb::bytes>>& tables, std::vector<std::vector<double>> enums,
             const std::vector<std::tuple<int, int>>& decimals, int columns, int64_t items_max, double unseen) {
            new (self) Program(make_program(nodes, defaults, tables, std::move(enums), decimals, columns, items_max, unseen));
          },
          "nodes"_a, "defaults"_a, "tables"_a, "enums"_a, "decimals"_a, "columns"_a, "items_max"_a, "unseen"_a)
      .def(
          "read",
          [](const Program& self, nb::list payloads, int64_t skip, bool as_double, bool refuse_empty) {
            require(skip >= 0, "skip is negative");
            return as_double ? read_as<double>(self, payloads, skip, refuse_empty)
                             : read_as<float>(self, payloads, skip, refuse_empty);
          },
          "payloads"_a, "skip"_a, "as_double"_a, "refuse_empty"_a = false);

  nb::class_<PredictionPieces>(m, "PredictionEncoder")
      .def(
          "__init__",
          [](PredictionPieces* self, nb::bytes prefix, const nb::object& lineage, const std::optional<std::string>& topic_id,
             const std::vector<std::string>& output_names, const std::vector<std::string>& classes) {
            new (self) PredictionPieces{
                text_of(prefix) + lineage_piece(lineage, {"cluster", "topic"}),
                optional_piece(topic_id) + lineage_piece(lineage, {"model_name", "model_version", "model_digest"}),
                {},
                {},
                {}};
            for (const auto& name : output_names) self->outputs.push_back(avro_string(name));
            for (const auto& name : classes) self->labels.push_back(avro_string(name));
            if (!classes.empty()) self->classes = avro_long(static_cast<int64_t>(classes.size()));
            for (const auto& label : self->labels) self->classes += label;
            self->classes += avro_long(0);
          },
          "prefix"_a, "lineage"_a, "topic_id"_a.none(), "output_names"_a, "classes"_a)
      .def(
          "encode",
          [](const PredictionPieces& self, Column<int32_t> partitions, Column<int64_t> offsets, Column<int64_t> timestamps,
             const std::vector<Matrix<double>>& outputs, std::optional<Column<int64_t>> labels, int64_t predicted_at_ms) {
            const Sources sources = sources_of(partitions, offsets, timestamps);
            require(outputs.size() == self.outputs.size(), "not every output is given");
            std::vector<Output> columns;
            for (const auto& output : outputs) {
              require(static_cast<int64_t>(output.shape(0)) == sources.count, "an output has another number of rows");
              columns.push_back({output.data(), static_cast<int64_t>(output.shape(1))});
            }
            if (labels) {
              require(static_cast<int64_t>(labels->shape(0)) == sources.count, "labels have another number of rows");
              for (int64_t i = 0; i < sources.count; ++i)
                require(labels->data()[i] >= 0 && labels->data()[i] < static_cast<int64_t>(self.labels.size()),
                        "a label is no class");
            }
            Messages messages;
            {
              nb::gil_scoped_release release;
              messages = encode_predictions(self, sources, columns, labels ? labels->data() : nullptr, predicted_at_ms);
            }
            return payloads_of(messages);
          },
          "partitions"_a, "offsets"_a, "timestamps_ms"_a, "outputs"_a, "labels"_a.none(), "predicted_at_ms"_a);

  nb::class_<ExplanationPieces>(m, "ExplanationEncoder")
      .def(
          "__init__",
          [](ExplanationPieces* self, nb::bytes prefix, const nb::object& lineage, const std::optional<std::string>& topic_id,
             const std::vector<std::string>& columns, const std::vector<std::optional<std::vector<std::string>>>& tables,
             const std::string& method, const std::optional<std::string>& background, const std::string& output_name,
             const std::vector<std::string>& classes, const std::string& space) {
            require(columns.size() == tables.size(), "a table, or None, for every column");
            new (self) ExplanationPieces{text_of(prefix) + lineage_piece(lineage, {"cluster", "topic"}),
                                         optional_piece(topic_id) +
                                             lineage_piece(lineage, {"model_name", "model_version", "model_digest"}) +
                                             avro_string(method) + optional_piece(background) + avro_string(output_name),
                                         {},
                                         avro_string(space),
                                         {},
                                         {}};
            for (const auto& name : classes) self->classes.push_back(avro_string(name));
            for (size_t i = 0; i < columns.size(); ++i) {
              self->features.push_back(avro_string(columns[i]));
              self->tables.emplace_back();
              if (tables[i])
                for (const auto& name : *tables[i]) self->tables.back().push_back(avro_string(name));
            }
          },
          "prefix"_a, "lineage"_a, "topic_id"_a.none(), "columns"_a, "tables"_a, "method"_a, "background"_a.none(),
          "output_name"_a, "classes"_a, "space"_a)
      .def(
          "encode",
          [](const ExplanationPieces& self, Column<int32_t> partitions, Column<int64_t> offsets, Column<int64_t> timestamps,
             Matrix<double> matrix, Matrix<double> values, Column<double> base, Column<int64_t> output_index,
             Column<double> additivity_error, std::optional<Column<double>> sampling_error, int64_t top) {
            const Sources sources = sources_of(partitions, offsets, timestamps);
            const auto rows = static_cast<size_t>(sources.count);
            for (const auto& part : {matrix, values})
              require(part.shape(0) == rows && part.shape(1) == self.features.size(), "a matrix has another shape");
            require(base.shape(0) == rows && output_index.shape(0) == rows && additivity_error.shape(0) == rows,
                    "a column has another length");
            require(!sampling_error || sampling_error->shape(0) == rows, "a column has another length");
            require(top >= 0, "top is negative");
            for (size_t i = 0; i < rows; ++i)
              require(output_index.data()[i] >= 0 && output_index.data()[i] <= INT32_MAX, "an output index is none");
            Messages messages;
            {
              nb::gil_scoped_release release;
              messages = encode_explanations(self, sources,
                                             {matrix.data(), values.data(), base.data(), output_index.data(),
                                              additivity_error.data(), sampling_error ? sampling_error->data() : nullptr},
                                             top);
            }
            return payloads_of(messages);
          },
          "partitions"_a, "offsets"_a, "timestamps_ms"_a, "matrix"_a, "values"_a, "base"_a, "output_index"_a,
          "additivity_error"_a, "sampling_error"_a.none(), "top"_a);
}
