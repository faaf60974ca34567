// A program is built and checked; reader.cpp runs it.
#include "program.h"

#include <cstring>
#include <stdexcept>

namespace penstock {
namespace {

constexpr int32_t depth_max = 64;

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

}  // namespace penstock
