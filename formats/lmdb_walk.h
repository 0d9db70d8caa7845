// All pairs of an LMDB that others wrote, in key order, read with pread alone. liblmdb trusts its
// file: a damaged or hostile data.mdb makes it read wherever the file says. This walk checks every
// number before use, needs no lock file, and works on read-only file systems.
//
// Layout (OpenLDAP, libraries/liblmdb/mdb.c, format version 1, 64-bit little-endian):
//   page    u64 its number, u16 pad, u16 flags (1 branch, 2 leaf, 4 overflow, 8 meta), then
//           u16 lower, u16 upper, or for overflow u32 pages; at 16: u16 offsets of the nodes, whose
//           number is (lower - 16) / 2
//   meta    pages 0 and 1, at 16: u32 0xBEEFC0DE, u32 version, u64 address, u64 map size, two
//           trees (free pages, then the main one; the first one's pad is the page size), u64 last
//           page, u64 transaction. The meta page with the higher transaction counts
//   tree    u32 pad, u16 flags, u16 depth, u64 branch pages, leaf pages, overflow pages, entries,
//           root (all ones: empty)
//   node    u16 low, u16 high, u16 flags, u16 key length, key, data. Leaf: low | high << 16 is the
//           data's length; flags: 1 the data is the u64 number of the first of its overflow pages,
//           2 a tree of its own, 4 several values. Branch: low, high, flags are the child's number
#ifndef FORMATS_LMDB_WALK_H
#define FORMATS_LMDB_WALK_H

#include "formats/source_range.h"

#define LMDB_KEY_BYTES 511

struct lmdb_walk;
// The file that is or is in `path`: PATH/data.mdb for a directory.
void lmdb_walk_file(const char *path, char *file, size_t size);
// Whether the file starts as an LMDB does.
enum status lmdb_walk_recognise(const char *file, bool *mine, struct error *error);
enum status lmdb_walk_open(struct lmdb_walk **out, const char *file, struct error *error);
void lmdb_walk_close(struct lmdb_walk **walk); // accepts a pointer to NULL
uint64_t lmdb_walk_entries(const struct lmdb_walk *walk);
// The next entry's key, valid until the next call. STATUS_END after the last; other failures are
// the tree's and final.
enum status lmdb_walk_next(struct lmdb_walk *walk, const uint8_t **key, size_t *key_len,
                           struct error *error);
// Where that entry's value lies, until close. A failure is the entry's alone: the walk goes on.
enum status lmdb_walk_value(const struct lmdb_walk *walk, struct source_range *value,
                            struct error *error);

#endif
