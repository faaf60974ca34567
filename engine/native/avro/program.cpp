#include "program.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace penstock {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double unseen = -1.0;

uint32_t hash_of(std::string_view text) {
  uint32_t hash = 2166136261u;  // FNV-1a
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 16777619u;
  return hash ^ (hash >> 15);
}

bool is_utf8(const uint8_t* p, int64_t n) {
  int64_t i = 0;
  while (i < n) {
    const uint8_t lead = p[i];
    int extra;
    uint32_t least, code;
    if (lead < 0x80) { ++i; continue; }
    if ((lead & 0xE0) == 0xC0) { extra = 1; least = 0x80; code = lead & 0x1F; }
    else if ((lead & 0xF0) == 0xE0) { extra = 2; least = 0x800; code = lead & 0x0F; }
    else if ((lead & 0xF8) == 0xF0) { extra = 3; least = 0x10000; code = lead & 0x07; }
    else return false;
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

template <typename T>
class Reader {
 public:
  Reader(const Program& program, const uint8_t* begin, const uint8_t* end, T* row)
      : program_(program), p_(begin), end_(end), row_(row), items_left_(program.items_max + (end - begin)) {}

  const uint8_t* place() const { return p_; }
  Status status() const { return status_; }

  bool read(const Node& node) {
    switch (node.kind) {
      case Kind::null:
        return true;  // the row is NaN already
      case Kind::boolean: {
        if (p_ == end_) return fail(Status::truncated);
        const uint8_t value = *p_++;
        if (value > 1) return fail(Status::corrupt);
        store(node.column, value);
        return true;
      }
      case Kind::int_: {
        int64_t value;
        if (!varint(value)) return false;
        if (value < INT32_MIN || value > INT32_MAX) return fail(Status::corrupt);
        store(node.column, static_cast<double>(value));
        return true;
      }
      case Kind::long_: {
        int64_t value;
        if (!varint(value)) return false;
        store(node.column, static_cast<double>(value));
        return true;
      }
      case Kind::float_: {
        float value;
        if (end_ - p_ < 4) return fail(Status::truncated);
        std::memcpy(&value, p_, 4);
        p_ += 4;
        store(node.column, value);
        return true;
      }
      case Kind::double_: {
        double value;
        if (end_ - p_ < 8) return fail(Status::truncated);
        std::memcpy(&value, p_, 8);
        p_ += 8;
        store(node.column, value);
        return true;
      }
      case Kind::bytes:
      case Kind::string:
        return text(node);
      case Kind::fixed:
        if (end_ - p_ < node.size) return fail(Status::truncated);
        p_ += node.size;
        return true;
      case Kind::enum_:
        return symbol(node);
      case Kind::array:
        return node.column >= 0 ? vector(node) : items(node);
      case Kind::map:
        return items(node);
      case Kind::union_: {
        int64_t branch;
        if (!varint(branch)) return false;
        if (branch < 0 || branch >= node.child_count) return fail(Status::corrupt);
        return read(child(node, branch));
      }
      case Kind::record: {
        for (int32_t i = 0; i < node.default_count; ++i) {
          const Default& d = program_.defaults[node.first_default + i];
          store(d.column, d.value);
        }
        const int32_t* children = program_.children.data() + node.first_child;
        for (int32_t i = 0; i < node.child_count; ++i)
          if (!read(program_.nodes[children[i]])) return false;
        return true;
      }
      case Kind::refuse:
        return fail(Status::incompatible);
    }
    return fail(Status::corrupt);
  }

 private:
  const Node& child(const Node& node, int64_t i) const {
    return program_.nodes[program_.children[node.first_child + i]];
  }

  void store(int32_t column, double value) {
    if (column >= 0) row_[column] = static_cast<T>(value);
  }

  bool fail(Status status) {
    status_ = status;
    return false;
  }

  bool varint(int64_t& value) {
    uint64_t bits = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (p_ == end_) return fail(Status::truncated);
      const uint8_t byte = *p_++;
      if (shift == 63 && byte > 1) return fail(Status::corrupt);
      bits |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) {
        value = static_cast<int64_t>(bits >> 1) ^ -static_cast<int64_t>(bits & 1);
        return true;
      }
    }
    return fail(Status::corrupt);
  }

  bool length(int64_t& n) {
    if (!varint(n)) return false;
    if (n < 0) return fail(Status::corrupt);
    if (n > end_ - p_) return fail(Status::truncated);
    return true;
  }

  bool text(const Node& node) {
    int64_t n;
    if (!length(n)) return false;
    if (node.column >= 0) {
      const int32_t code =
          program_.tables[node.table].find({reinterpret_cast<const char*>(p_), static_cast<size_t>(n)});
      if (code < 0 && !is_utf8(p_, n)) return fail(Status::corrupt);
      store(node.column, code < 0 ? unseen : code);
    } else if (node.kind == Kind::string && !is_utf8(p_, n)) {
      return fail(Status::corrupt);
    }
    p_ += n;
    return true;
  }

  bool symbol(const Node& node) {
    int64_t place;
    if (!varint(place)) return false;
    const auto& codes = program_.enums[node.table];
    if (place < 0 || place >= static_cast<int64_t>(codes.size())) return fail(Status::corrupt);
    if (std::isnan(codes[place])) return fail(Status::incompatible);
    store(node.column, codes[place]);
    return true;
  }

  // The header of an array's or map's block: its item count, 0 at the end.
  bool block(int64_t& count) {
    if (!varint(count)) return false;
    if (count < 0) {  // the block's size in bytes follows; it must at least be there
      if (count == INT64_MIN) return fail(Status::corrupt);
      count = -count;
      int64_t size;
      if (!length(size)) return false;
    }
    if (count > items_left_) return fail(Status::limit);
    items_left_ -= count;
    return true;
  }

  bool items(const Node& node) {
    const Node& item = child(node, 0);
    for (int64_t count;;) {
      if (!block(count)) return false;
      if (count == 0) return true;
      for (; count > 0; --count) {
        if (node.kind == Kind::map) {
          int64_t n;
          if (!length(n)) return false;
          if (!is_utf8(p_, n)) return fail(Status::corrupt);
          p_ += n;
        }
        if (!read(item)) return false;
      }
    }
  }

  bool vector(const Node& node) {
    Node item = child(node, 0);
    int64_t done = 0;
    for (int64_t count;;) {
      if (!block(count)) return false;
      if (count == 0) break;
      for (; count > 0; --count, ++done) {
        const int32_t column = done < node.size ? node.column + static_cast<int32_t>(done) : -1;
        if (!number(item, column)) return false;
      }
    }
    return done == node.size ? true : fail(Status::wrong_length);
  }

  // One item of a vector: a number, or a union of null and numbers.
  bool number(Node node, int32_t column) {
    if (node.kind == Kind::union_) {
      int64_t branch;
      if (!varint(branch)) return false;
      if (branch < 0 || branch >= node.child_count) return fail(Status::corrupt);
      node = child(node, branch);
    }
    node.column = column;
    return read(node);
  }

  const Program& program_;
  const uint8_t* p_;
  const uint8_t* end_;
  T* row_;
  int64_t items_left_;
  Status status_ = Status::ok;
};

}  // namespace

Table::Table(const std::vector<std::string>& names) {
  uint32_t size = 4;
  while (size < names.size() * 2) size *= 2;
  slots_.resize(size);
  mask_ = size - 1;
  for (size_t code = 0; code < names.size(); ++code) {
    Slot slot{static_cast<int32_t>(bytes_.size()), static_cast<int32_t>(names[code].size()), static_cast<int32_t>(code)};
    bytes_ += names[code];
    uint32_t place = hash_of(names[code]) & mask_;
    while (slots_[place].code >= 0) place = (place + 1) & mask_;
    slots_[place] = slot;
  }
}

int32_t Table::find(std::string_view name) const {
  for (uint32_t place = hash_of(name) & mask_;; place = (place + 1) & mask_) {
    const Slot& slot = slots_[place];
    if (slot.code < 0) return -1;
    if (slot.length == static_cast<int32_t>(name.size()) &&
        std::memcmp(bytes_.data() + slot.begin, name.data(), name.size()) == 0)
      return slot.code;
  }
}

void Program::check() const {
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw std::invalid_argument(std::string("Avro program: ") + what);
  };
  require(!nodes.empty() && nodes[0].kind == Kind::record, "does not begin with a record");
  require(columns >= 0 && items_max >= 0, "negative bounds");
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    require(node.first_child >= 0 && node.child_count >= 0 && node.size >= 0, "negative size");
    require(node.first_child + static_cast<int64_t>(node.child_count) <= static_cast<int64_t>(children.size()), "children out of range");
    require(node.first_default >= 0 && node.default_count >= 0, "negative size");
    require(node.first_default + static_cast<int64_t>(node.default_count) <= static_cast<int64_t>(defaults.size()), "defaults out of range");
    for (int32_t c = 0; c < node.child_count; ++c) {  // children come later: the tree has no cycles
      const int32_t to = children[node.first_child + c];
      require(to > static_cast<int32_t>(i) && to < static_cast<int32_t>(nodes.size()), "child out of order");
    }
    const bool vector = node.kind == Kind::array && node.column >= 0;
    require(node.column >= -1 && node.column + static_cast<int64_t>(vector ? node.size : 1) <= columns + (node.column < 0 ? 1 : 0), "column out of range");
    if (node.kind == Kind::enum_) require(node.table >= 0 && node.table < static_cast<int32_t>(enums.size()), "no codes");
    if ((node.kind == Kind::string || node.kind == Kind::bytes) && node.column >= 0)
      require(node.table >= 0 && node.table < static_cast<int32_t>(tables.size()), "no table");
    if (node.kind == Kind::array || node.kind == Kind::map) require(node.child_count == 1, "items of no kind");
  }
  for (const Default& d : defaults) require(d.column >= 0 && d.column < columns, "default out of range");
}

template <typename T>
Verdict read_payload(const Program& program, Payload payload, int64_t skip, T* row) {
  for (int32_t c = 0; c < program.columns; ++c) row[c] = static_cast<T>(nan_value);
  if (payload.length < skip) return {Status::truncated, static_cast<int32_t>(payload.length)};
  const uint8_t* end = payload.data + payload.length;
  Reader<T> reader(program, payload.data + skip, end, row);
  Status status = reader.read(program.nodes[0]) ? Status::ok : reader.status();
  if (status == Status::ok && reader.place() != end) status = Status::trailing;
  if (status != Status::ok)
    for (int32_t c = 0; c < program.columns; ++c) row[c] = static_cast<T>(nan_value);
  return {status, static_cast<int32_t>(reader.place() - payload.data)};
}

template Verdict read_payload<float>(const Program&, Payload, int64_t, float*);
template Verdict read_payload<double>(const Program&, Payload, int64_t, double*);

}  // namespace penstock
