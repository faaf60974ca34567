// NVIDIA's driver and compiler as far as Penstock calls them, on the CPU: a GPU of compute capability 9.0 that knows the kernels
// of tree_shap.cu. It is as unforgiving as the real one: what is begun on a stream is done when it is waited for, a thread
// without the context is refused, addresses of the GPU are none of the CPU's, and memory is full of NaN with guards around it.
#include <map>
#include <set>
#include <string>

#include "on_cpu.h"
#include KERNELS

namespace {

enum Status {
  ok = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_device = 101,
  invalid_image = 200,
  invalid_context = 201,
  not_found = 500,
  illegal_address = 700,
  launch_failed = 719
};
using Address = unsigned long long;

constexpr Address elsewhere = 1ull << 60;
constexpr size_t guard_bytes = 4096;
const char cubin[] = "machine code of the fake GPU";

struct Memory {
  std::vector<char> bytes;
  size_t size;
};

struct State {
  std::map<Address, Memory> memory;
  std::map<char*, size_t> page_locked;
  std::set<void*> streams, modules;
  std::vector<std::function<Status()>> begun;
  std::map<std::string, std::pair<int, int>> failures;  // how many calls still succeed, then the status
  std::map<std::string, int> counts;
  size_t memory_max = 1ull << 30;
  int contexts = 0;
  bool backward = false;
  Status broken = ok;  // from a kernel that failed; it stays
};
State state;
thread_local int current = 0;
char context_of_all;
std::string compiled, said;

Status failure(const char* name) {
  const auto found = state.failures.find(name);
  if (found == state.failures.end() || found->second.first-- > 0) return ok;
  return static_cast<Status>(found->second.second);
}

Status check(const char* name, bool needs_context) {
  ++state.counts[name];
  if (const Status status = failure(name)) return status;
  if (state.broken) return state.broken;
  return needs_context && !current ? invalid_context : ok;
}

// The bytes at an address of the GPU, null where they are not all inside one allocation.
char* at(Address address, size_t size = 0) {
  auto found = state.memory.upper_bound(address);
  if (found == state.memory.begin()) return nullptr;
  --found;
  const Address offset = address - found->first;
  return offset + size <= found->second.size ? found->second.bytes.data() + guard_bytes + offset : nullptr;
}

bool guards_hold() {
  for (const auto& [address, memory] : state.memory)
    for (size_t i = 0; i < guard_bytes; ++i)
      if (memory.bytes[i] != '\xff' || memory.bytes[memory.bytes.size() - 1 - i] != '\xff') return false;
  return true;
}

bool is_page_locked(const void* pointer, size_t size) {
  for (const auto& [start, length] : state.page_locked)
    if (pointer >= start && static_cast<const char*>(pointer) + size <= start + length) return true;
  return false;
}

template <class T>
T argument(void** arguments, int place) {
  T value;
  std::memcpy(&value, arguments[place], sizeof value);
  return value;
}

template <class T>
T* pointer(void** arguments, int place) {
  return reinterpret_cast<T*>(at(argument<Address>(arguments, place)));
}

}  // namespace

#define TRY(needs_context) \
  if (const Status status = check(__func__, needs_context)) return status

extern "C" {

// What tests ask and set.
void fake_reset() {
  state = State{};
  compiled.clear();
}
void fake_fail(const char* name, int after, int status) { state.failures[name] = {after, status}; }
void fake_memory(size_t bytes) { state.memory_max = bytes; }
void fake_backward(int backward) { state.backward = backward; }
int fake_calls(const char* name) { return state.counts[name]; }
int fake_held() {  // of everything that is to be given back
  return static_cast<int>(state.memory.size() + state.page_locked.size() + state.streams.size() + state.modules.size()) +
         state.contexts + current;
}

int cuInit(unsigned) {
  TRY(false);
  return ok;
}
int cuDriverGetVersion(int* version) {
  TRY(false);
  *version = 13000;
  return ok;
}
int cuDeviceGetCount(int* count) {
  TRY(false);
  *count = 1;
  return ok;
}
int cuDeviceGet(int* device, int index) {
  TRY(false);
  *device = 40 + index;
  return index == 0 ? ok : invalid_device;
}
int cuDeviceGetName(char* name, int size, int device) {
  TRY(false);
  std::snprintf(name, size, "fake GPU");
  return device == 40 ? ok : invalid_device;
}
int cuDeviceGetAttribute(int* value, int which, int device) {
  TRY(false);
  *value = which == 75 ? 9 : which == 76 ? 0 : -1;
  return device == 40 ? ok : invalid_device;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  TRY(false);
  if (device != 40) return invalid_device;
  ++state.contexts;
  *context = &context_of_all;
  return ok;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  TRY(false);
  if (device != 40 || state.contexts == 0) return invalid_context;
  --state.contexts;
  return ok;
}
int cuCtxPushCurrent_v2(void* context) {
  TRY(false);
  if (context != &context_of_all || state.contexts == 0) return invalid_context;
  ++current;
  return ok;
}
int cuCtxPopCurrent_v2(void** context) {
  if (!current) return invalid_context;
  --current;
  *context = &context_of_all;
  return ok;
}

int cuStreamCreate(void** stream, unsigned flags) {
  TRY(true);
  if (flags != 1) return invalid_value;
  *stream = new char;
  state.streams.insert(*stream);
  return ok;
}
int cuStreamSynchronize(void* stream) {
  TRY(true);
  if (!state.streams.count(stream)) return invalid_value;
  std::vector<std::function<Status()>> begun;
  begun.swap(state.begun);
  for (const auto& each : begun)
    if (const Status status = each()) return state.broken = status;
  return ok;
}
int cuStreamDestroy_v2(void* stream) {
  TRY(true);
  if (!state.streams.erase(stream)) return invalid_value;
  delete static_cast<char*>(stream);
  return ok;
}

int cuModuleLoadData(void** module, const void* image) {
  TRY(true);
  if (std::memcmp(image, cubin, sizeof cubin)) return invalid_image;
  *module = new char;
  state.modules.insert(*module);
  return ok;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  TRY(true);
  if (!state.modules.count(module)) return invalid_value;
  const std::string wanted = name;
  if (wanted != "add_parts" && wanted != "join_parts") return not_found;
  *function = wanted == "add_parts" ? reinterpret_cast<void*>(add_parts) : reinterpret_cast<void*>(join_parts);
  return ok;
}
int cuModuleUnload(void* module) {
  TRY(true);
  if (!state.modules.erase(module)) return invalid_value;
  delete static_cast<char*>(module);
  return ok;
}

int cuMemAlloc_v2(Address* address, size_t size) {
  TRY(true);
  size_t taken = 0;
  for (const auto& each : state.memory) taken += each.second.size;
  if (size == 0) return invalid_value;
  if (taken + size > state.memory_max) return out_of_memory;
  Memory memory{std::vector<char>(size + 2 * guard_bytes, '\xff'), size};
  *address = elsewhere + reinterpret_cast<Address>(memory.bytes.data());
  state.memory.emplace(*address, std::move(memory));
  return ok;
}
int cuMemFree_v2(Address address) {
  TRY(true);
  if (!guards_hold()) return illegal_address;
  return state.memory.erase(address) ? ok : invalid_value;
}
int cuMemHostAlloc(void** pointer, size_t size, unsigned flags) {
  TRY(true);
  if (size == 0 || flags != 0) return invalid_value;
  char* memory = new char[size];
  std::memset(memory, 0xff, size);
  state.page_locked[memory] = size;
  *pointer = memory;
  return ok;
}
int cuMemFreeHost(void* pointer) {
  TRY(true);
  if (!state.page_locked.erase(static_cast<char*>(pointer))) return invalid_value;
  delete[] static_cast<char*>(pointer);
  return ok;
}

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* stream) {
  TRY(true);
  if (!state.streams.count(stream) || !at(to, size)) return invalid_value;
  state.begun.push_back([=] {
    std::memcpy(at(to, size), from, size);
    return ok;
  });
  return ok;
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* stream) {
  TRY(true);
  if (!state.streams.count(stream) || !at(from, size) || !is_page_locked(to, size)) return invalid_value;
  state.begun.push_back([=] {
    std::memcpy(to, at(from, size), size);
    return ok;
  });
  return ok;
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra) {
  TRY(true);
  if (!state.streams.count(stream) || extra || grid_z != 1 || block_z != 1 || !grid_x || !grid_y || grid_y > 65535 || !block_x ||
      !block_y || block_x * block_y > 1024)
    return invalid_value;
  std::function<void()> kernel;
  if (function == reinterpret_cast<void*>(add_parts)) {
    if (block_x != ROWS || block_y != 1) return invalid_value;
    const auto* rows = pointer<float>(arguments, 0);
    const int features = argument<int>(arguments, 1), stride = argument<int>(arguments, 2);
    const auto *parts = pointer<int4>(arguments, 3), *groups = pointer<int4>(arguments, 4);
    const auto* sources = pointer<int>(arguments, 5);
    const auto* thresholds = pointer<float4>(arguments, 6);
    const auto *asked = pointer<ushort4>(arguments, 7), *places = pointer<ushort4>(arguments, 8);
    const auto* tables = pointer<float4>(arguments, 9);
    auto* sums = pointer<float>(arguments, 10);
    if (!rows || !parts || !groups || !sources || !thresholds || !asked || !places || !tables || !sums) return invalid_value;
    kernel = [=] { add_parts(rows, features, stride, parts, groups, sources, thresholds, asked, places, tables, sums); };
  } else if (function == reinterpret_cast<void*>(join_parts)) {
    const auto* sums = pointer<float>(arguments, 0);
    const int stride = argument<int>(arguments, 1), width = argument<int>(arguments, 2);
    const auto *firsts = pointer<int>(arguments, 3), *found = pointer<int>(arguments, 4);
    auto* values = pointer<float>(arguments, 5);
    if (!sums || !firsts || !found || !values) return invalid_value;
    kernel = [=] { join_parts(sums, stride, width, firsts, found, values); };
  } else {
    return invalid_value;
  }
  const bool backward = state.backward;
  state.begun.push_back([=] {
    if (on_cpu::grid({grid_x, grid_y}, {block_x, block_y}, shared_bytes, backward, kernel)) return launch_failed;
    return guards_hold() ? ok : illegal_address;
  });
  return ok;
}

int cuGetErrorString(int status, const char** text) {
  *text = status == out_of_memory     ? "out of memory"
          : status == illegal_address ? "an illegal memory access was encountered"
                                      : nullptr;
  return *text ? ok : invalid_value;
}

// The compiler.
int nvrtcVersion(int* major, int* minor) {
  *major = 13;
  *minor = 0;
  return ok;
}
int nvrtcCreateProgram(void** program, const char* source, const char*, int headers, const char* const*, const char* const*) {
  compiled = source;
  said.clear();
  *program = &compiled;
  if (const Status status = failure("nvrtcCreateProgram")) return status;
  ++state.counts["programs"];
  return headers ? 3 : 0;
}
int nvrtcCompileProgram(void*, int count, const char* const* options) {
  const std::set<std::string> given(options, options + count);
  if (!given.count("--gpu-architecture=sm_90") || !given.count("--define-macro=ROWS=" + std::to_string(ROWS))) {
    said = "nvrtc: error: invalid value for --gpu-architecture\nand more of it";
    return 5;
  }
  return failure("nvrtcCompileProgram");
}
int nvrtcGetProgramLogSize(void*, size_t* size) {
  *size = said.size() + 1;
  return ok;
}
int nvrtcGetProgramLog(void*, char* text) {
  std::memcpy(text, said.c_str(), said.size() + 1);
  return ok;
}
int nvrtcGetCUBINSize(void*, size_t* size) {
  *size = sizeof cubin;
  return ok;
}
int nvrtcGetCUBIN(void*, char* image) {
  std::memcpy(image, cubin, sizeof cubin);
  return ok;
}
int nvrtcDestroyProgram(void** program) {
  *program = nullptr;
  --state.counts["programs"];
  return ok;
}
const char* nvrtcGetErrorString(int status) { return status == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR"; }

}  // extern "C"
