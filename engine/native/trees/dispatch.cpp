// Chooses the widest instruction set that both the processor and this build have.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace penstock {
namespace plain {
extern const Kernels kernels;
}
#ifdef PENSTOCK_X86
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

const Kernels& best_kernels() {
#ifdef PENSTOCK_X86
  const char* most = std::getenv("PENSTOCK_ISA_MAX");  // for tests: the narrower sets on a machine that has the wider
  const bool plain_only = most != nullptr && std::strcmp(most, "plain") == 0;
  const bool no_avx512 = most != nullptr && std::strcmp(most, "avx2") == 0;
  __builtin_cpu_init();
  if (!plain_only && !no_avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512::kernels;
  if (!plain_only && __builtin_cpu_supports("avx2")) return avx2::kernels;
#endif
  return plain::kernels;
}

}  // namespace penstock
