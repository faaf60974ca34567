#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "text.h"

namespace penstock {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr int32_t depth_max = 64;
constexpr int64_t text_length_max = int64_t{1} << 26;  // as in texts.py: both in the 53 bits of a double
constexpr int64_t text_at_max = int64_t{1} << 27;

uint64_t hash_of(std::string_view text) {
  constexpr uint64_t factor = 0x9E3779B97F4A7C15u;
  uint64_t hash = text.size() * factor;
  const char* p = text.data();
  size_t n = text.size();
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    hash = (hash ^ word) * factor;
    hash ^= hash >> 32;
  }
  if (n > 0) {
    uint64_t word = 0;
    std::memcpy(&word, p, n);
    hash = (hash ^ word) * factor;
  }
  return hash ^ (hash >> 29);
}

template <typename T>
class Reader {
 public:
  // `begin`: of the payload, whose first `skip` bytes are passed over.
  Reader(const Program& program, const uint8_t* begin, int64_t skip, const uint8_t* end, T* row)
      : program_(program),
        begin_(begin),
        p_(begin + skip),
        end_(end),
        row_(row),
        items_left_(program.items_max + (end - begin - skip)) {}

  const uint8_t* place() const { return p_; }
  Status status() const { return status_; }
  int32_t node() const { return fault_ == nullptr ? 0 : static_cast<int32_t>(fault_ - program_.nodes.data()); }

  bool reached() const { return reached_; }

  bool read_root() { return read(program_.nodes[0], -1); }

 private:
  bool read_record(const Node& node) {
    for (int32_t i = 0; i < node.default_count; ++i) {
      const Default& d = program_.defaults[node.first_default + i];
      row_[d.column] = static_cast<T>(d.value);
    }
    const Node* child = program_.nodes.data() + node.first_child;
    for (const Node* last = child + node.child_count; child != last; ++child)
      if (!read(*child, child->column)) {
        if (fault_ == nullptr) fault_ = child;  // the innermost comes first
        return false;
      }
    return true;
  }

  bool read(const Node& node, int32_t column) {
    switch (node.kind) {
      case Kind::null:
        reached_ |= column >= 0;
        return true;  // the row is NaN already
      case Kind::boolean: {
        if (p_ == end_) return fail(Status::truncated);
        const uint8_t value = *p_++;
        if (value > 1) return fail(Status::corrupt);
        store(column, value);
        return true;
      }
      case Kind::int_: {
        int64_t value;
        if (!varint(value)) return false;
        if (value < INT32_MIN || value > INT32_MAX) return fail(Status::corrupt);
        store(column, static_cast<double>(value));
        return true;
      }
      case Kind::long_: {
        int64_t value;
        if (!varint(value)) return false;
        store(column, static_cast<double>(value));
        return true;
      }
      case Kind::float_:
        return numbers<float>(node.size, column);
      case Kind::double_:
        return numbers<double>(node.size, column);
      case Kind::bytes:
      case Kind::string:
        return text(node, column);
      case Kind::fixed:
        if (end_ - p_ < node.size) return fail(Status::truncated);
        p_ += node.size;
        return true;
      case Kind::enum_:
        return symbol(node, column);
      case Kind::array:
        return column >= 0 ? vector(node, column) : items(node);
      case Kind::map:
        return items(node);
      case Kind::union_: {
        int64_t branch;
        if (!varint(branch)) return false;
        if (branch < 0 || branch >= node.child_count) return fail(Status::corrupt);
        const Node& child = program_.nodes[node.first_child + branch];
        if (child.kind == Kind::null) {
          reached_ |= child.column >= 0;
          return true;
        }
        const int32_t to = column >= 0 ? column : child.column;
        if (child.kind == Kind::double_) return numbers<double>(child.size, to);
        return read(child, to);
      }
      case Kind::record:
        return read_record(node);
      case Kind::refuse:
        fault_ = &node;  // its place tells why
        return fail(Status::incompatible);
      case Kind::skip:
        return fail(Status::skipped);
      case Kind::decimal: {
        int64_t n;
        return length(n) && decimal(node, n, column);
      }
      case Kind::fixed_decimal:
        if (end_ - p_ < node.size) return fail(Status::truncated);
        return decimal(node, node.size, column);
    }
    return fail(Status::corrupt);
  }

  void store(int32_t column, double value) {
    if (column < 0) return;
    row_[column] = static_cast<T>(value);
    reached_ = true;
  }

  bool fail(Status status) {
    status_ = status;
    return false;
  }

  bool varint(int64_t& value) {
    if (p_ != end_ && *p_ < 0x80) {
      const uint64_t byte = *p_++;
      value = static_cast<int64_t>(byte >> 1) ^ -static_cast<int64_t>(byte & 1);
      return true;
    }
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

  // Reads `count` numbers into columns side by side.
  template <typename N>
  bool numbers(int32_t count, int32_t column) {
    const int64_t there = (end_ - p_) / static_cast<int64_t>(sizeof(N));
    if (there < count) {
      p_ += there * static_cast<int64_t>(sizeof(N));
      return fail(Status::truncated);
    }
    if (count == 1) {  // most are alone
      N value;
      std::memcpy(&value, p_, sizeof(N));
      store(column, value);
    } else if (column >= 0) {
      reached_ = true;
      T* to = row_ + column;
      for (int32_t i = 0; i < count; ++i) {
        N value;
        std::memcpy(&value, p_ + i * sizeof(N), sizeof(N));
        to[i] = static_cast<T>(value);
      }
    }
    p_ += static_cast<int64_t>(count) * static_cast<int64_t>(sizeof(N));
    return true;
  }

  bool decimal(const Node& node, int64_t n, int32_t column) {
    const DecimalType& type = program_.decimals[node.table];
    double value;
    if (!decimal_value(p_, n, type.precision, type.scale, value)) return fail(Status::corrupt);
    p_ += n;
    store(column, value);
    return true;
  }

  bool length(int64_t& n) {
    if (!varint(n)) return false;
    if (n < 0) return fail(Status::corrupt);
    if (n > end_ - p_) return fail(Status::truncated);
    return true;
  }

  bool text(const Node& node, int32_t column) {
    int64_t n;
    if (!length(n)) return false;
    if (column >= 0 && node.table < 0) {
      if (node.kind == Kind::string && !is_utf8(p_, n)) return fail(Status::corrupt);
      const int64_t at = p_ - begin_;
      if (at >= text_at_max || n >= text_length_max) return fail(Status::limit);
      store(column, static_cast<double>(at * text_length_max + n));
    } else if (column >= 0) {
      const int32_t code = program_.tables[node.table].find({reinterpret_cast<const char*>(p_), static_cast<size_t>(n)});
      if (code < 0 && !is_utf8(p_, n)) return fail(Status::corrupt);
      store(column, code < 0 ? program_.unseen : code);
    } else if (node.kind == Kind::string && !is_utf8(p_, n)) {
      return fail(Status::corrupt);
    }
    p_ += n;
    return true;
  }

  bool symbol(const Node& node, int32_t column) {
    int64_t place;
    if (!varint(place)) return false;
    const auto& codes = program_.enums[node.table];
    if (place < 0 || place >= static_cast<int64_t>(codes.size())) return fail(Status::corrupt);
    if (std::isnan(codes[place])) {
      fault_ = &node;
      return fail(Status::incompatible);
    }
    store(column, codes[place]);
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
    const Node& item = program_.nodes[node.first_child];
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
        if (!read(item, -1)) return false;
      }
    }
  }

  bool vector(const Node& node, int32_t column) {
    reached_ = true;
    const Node& item = program_.nodes[node.first_child];
    int64_t done = 0;
    for (int64_t count;;) {
      if (!block(count)) return false;
      if (count == 0) break;
      if (item.kind == Kind::double_ && count <= node.size - done) {
        if (!numbers<double>(static_cast<int32_t>(count), column + static_cast<int32_t>(done))) return false;
        done += count;
      } else if (item.kind == Kind::float_ && count <= node.size - done) {
        if (!numbers<float>(static_cast<int32_t>(count), column + static_cast<int32_t>(done))) return false;
        done += count;
      } else {
        for (; count > 0; --count, ++done)
          if (!read(item, done < node.size ? column + static_cast<int32_t>(done) : -1)) return false;
      }
    }
    return done == node.size ? true : fail(Status::wrong_length);
  }

  const Program& program_;
  const uint8_t* begin_;
  const uint8_t* p_;
  const uint8_t* end_;
  T* row_;
  int64_t items_left_;
  Status status_ = Status::ok;
  bool reached_ = false;  // something that has a column was written
  const Node* fault_ = nullptr;
};

void require(bool ok, const char* what) {
  if (!ok) throw std::invalid_argument(std::string("Avro program: ") + what);
}

bool within(int64_t first, int64_t count, size_t size) {
  return first >= 0 && count >= 0 && first + count <= static_cast<int64_t>(size);
}

bool is_item_of_a_vector(Kind kind) {
  return kind == Kind::null || kind == Kind::boolean || kind == Kind::int_ || kind == Kind::long_ || kind == Kind::float_ ||
         kind == Kind::double_ || kind == Kind::decimal || kind == Kind::fixed_decimal || kind == Kind::refuse;
}

void check_vector(const Program& program, const Node& node) {
  const Node& item = program.nodes[node.first_child];
  const int32_t first = item.kind == Kind::union_ ? item.first_child : node.first_child;
  const int32_t count = item.kind == Kind::union_ ? item.child_count : 1;
  require(item.column < 0, "a column for every item");
  for (int32_t i = first; i < first + count; ++i) {
    require(is_item_of_a_vector(program.nodes[i].kind) && program.nodes[i].column < 0, "items that are no numbers");
    require((program.nodes[i].kind != Kind::float_ && program.nodes[i].kind != Kind::double_) || program.nodes[i].size == 1,
            "items of several numbers");
  }
}

void check_node(const Program& program, const Node& node) {
  require(node.size >= 0 && node.column >= -1, "negative size");
  const bool childless =
      node.kind != Kind::array && node.kind != Kind::map && node.kind != Kind::union_ && node.kind != Kind::record;
  require(!childless || node.child_count == 0, "children of a leaf");
  require(within(node.first_default, node.default_count, program.defaults.size()), "defaults out of range");
  const bool run = node.kind == Kind::float_ || node.kind == Kind::double_;
  require(!run || node.size >= 1, "a run of nothing");
  const bool wide = run || node.kind == Kind::array;
  require(node.column < 0 || within(node.column, wide ? node.size : 1, static_cast<size_t>(program.columns)),
          "column out of range");
  require(node.column < 0 || (node.kind != Kind::union_ && node.kind != Kind::record && node.kind != Kind::map),
          "a column of several values");
  if (node.kind == Kind::enum_) require(within(node.table, 1, program.enums.size()), "no codes");
  if (node.kind == Kind::decimal || node.kind == Kind::fixed_decimal)
    require(within(node.table, 1, program.decimals.size()), "no precision");
  if ((node.kind == Kind::string || node.kind == Kind::bytes) && node.column >= 0)
    require((node.kind == Kind::string && node.table == -1) || within(node.table, 1, program.tables.size()), "no table");
  if (node.kind == Kind::array || node.kind == Kind::map) require(node.child_count == 1, "items of no kind");
}

}  // namespace

Table::Table(const std::vector<std::string>& names) {
  size_t size = 4, bytes = 0;
  while (size < names.size() * 2) size *= 2;
  for (const std::string& name : names) bytes += name.size();
  require(names.size() < INT32_MAX / 4 && bytes < INT32_MAX, "too many categories");
  bytes_.reserve(bytes);
  slots_.resize(size);
  mask_ = size - 1;
  for (size_t code = 0; code < names.size(); ++code) {
    Slot slot{static_cast<int32_t>(bytes_.size()), static_cast<int32_t>(names[code].size()), static_cast<int32_t>(code)};
    bytes_ += names[code];
    uint64_t place = hash_of(names[code]) & mask_;
    while (slots_[place].code >= 0) place = (place + 1) & mask_;
    slots_[place] = slot;
  }
}

int32_t Table::find(std::string_view name) const {
  for (uint64_t place = hash_of(name) & mask_;; place = (place + 1) & mask_) {
    const Slot& slot = slots_[place];
    if (slot.code < 0) return -1;
    if (static_cast<size_t>(slot.length) == name.size() && std::memcmp(bytes_.data() + slot.begin, name.data(), name.size()) == 0)
      return slot.code;
  }
}

void Program::check() const {
  require(!nodes.empty(), "is empty");
  const auto may_be_the_record = [](Kind kind) { return kind == Kind::record || kind == Kind::refuse || kind == Kind::skip; };
  require(may_be_the_record(nodes[0].kind) || nodes[0].kind == Kind::union_, "does not begin with a record");
  for (int32_t i = 1; nodes[0].kind == Kind::union_ && i <= nodes[0].child_count && i < static_cast<int32_t>(nodes.size()); ++i)
    require(may_be_the_record(nodes[i].kind), "may begin with something else than a record");
  require(columns >= 0 && items_max >= 0, "negative bounds");
  for (const Default& d : defaults) require(d.column >= 0 && d.column < columns, "default out of range");
  for (const DecimalType& d : decimals)
    require(d.precision >= 1 && d.precision <= 38 && d.scale >= 0 && d.scale <= d.precision, "decimal out of range");
  std::vector<int32_t> depths(nodes.size());
  int64_t claimed = 1;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = nodes[i];
    require(node.child_count >= 0 && node.first_child == claimed, "children out of order");  // so each has one parent: a tree
    claimed += node.child_count;
    require(claimed <= static_cast<int64_t>(nodes.size()), "children out of range");
    require(depths[i] < depth_max, "nested too deep");
    for (int32_t c = 0; c < node.child_count; ++c) {
      const Node& child = nodes[node.first_child + c];
      depths[node.first_child + c] = depths[i] + 1;
      const bool nothing = child.kind == Kind::null || (child.kind == Kind::fixed && child.size == 0) ||
                           (child.kind == Kind::record && child.child_count == 0 && child.default_count == 0);
      require(node.kind != Kind::record || !nothing, "a member without bytes");
    }
    check_node(*this, node);
  }
  require(claimed == static_cast<int64_t>(nodes.size()), "a node without a parent");
  for (const Node& node : nodes)
    if (node.kind == Kind::array && node.column >= 0) check_vector(*this, node);
}

template <typename T>
Verdict read_payload(const Program& program, Payload payload, int64_t skip, bool refuse_empty, T* row) {
  std::fill_n(row, program.columns, static_cast<T>(nan_value));
  if (payload.length < skip) return {Status::truncated, payload.length, 0};
  const uint8_t* end = payload.data + payload.length;
  Reader<T> reader(program, payload.data, skip, end, row);
  Status status = reader.read_root() ? Status::ok : reader.status();
  if (status == Status::ok && reader.place() != end) status = Status::trailing;
  if (status == Status::ok && refuse_empty && !reader.reached()) status = Status::empty;
  if (status != Status::ok) std::fill_n(row, program.columns, static_cast<T>(nan_value));
  return {status, reader.place() - payload.data, reader.node()};
}

template Verdict read_payload<float>(const Program&, Payload, int64_t, bool, float*);
template Verdict read_payload<double>(const Program&, Payload, int64_t, bool, double*);

}  // namespace penstock
