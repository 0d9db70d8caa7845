// Which plan was found fastest for a convolution, remembered on disk: so that a second run starts
// at once, and a resumed one computes the same bits. Private to the cuda device; needs no CUDA.
//
// One file per device and version of cuDNN, in $BYOL_CACHE, else $XDG_CACHE_HOME/byol, else
// ~/.cache/byol. One line per plan: CRC-32C of the rest in hexadecimal, a tab, the key, a tab, the
// plan. Lines that do not check are passed over, and gone with the next writing. Files are replaced
// whole, what another process added meanwhile kept; of two that add at the same moment one may be
// lost, which costs another search. A file that cannot be read or written is no error.
#ifndef TRAINER_CUDA_PLAN_CACHE_H
#define TRAINER_CUDA_PLAN_CACHE_H

#include "formats/status.h"

#include <stdbool.h>

struct plan_cache;

// `library`: "cudnn-9.19.0"; `device`: its name.
enum status plan_cache_open(struct plan_cache **out, const char *library, const char *device,
                            struct error *error);
void plan_cache_close(struct plan_cache **cache);

// The file, or "" when there is no directory for it.
const char *plan_cache_path(const struct plan_cache *cache);

// NULL when unknown; valid until the cache changes.
const char *plan_cache_find(const struct plan_cache *cache, const char *key);

// Remembers, here and on disk. Neither text may hold a tab or a line's end. Fails for want of
// memory only.
enum status plan_cache_add(struct plan_cache *cache, const char *key, const char *plan,
                           struct error *error);

#endif
