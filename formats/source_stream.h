// A source that another program reads: one that needs a library which we do not link, because it is
// rarely there (Parquet: Python with pyarrow) or because a hostile file can crash it (HDF5). The
// program runs as a process of its own, started without a shell, with nothing but the source's path
// and a pipe; whatever becomes of it ends in a message here.
//
// What it writes, little-endian: "BYOLIMG1", then frames of 32 bytes, a name, and a payload:
//
//   0    u32 what: 1 image file, 2 RGB pixels, 3 grey pixels, 4 the name of a class (labels count
//        from 0), 5 a line about the layout, 6 the end, 7 a failure, 8 an image that cannot
//        be read: the payload says why
//   4    u32 flags: 1 the name is only the image's number (`numbered` of struct source_entry), 2
//   the
//        payload is left out, as `names_only` allows
//   8    i32 label (-1 none, -2 by the name's folder); of a failure: its enum status
//   12   u32 bytes of the name (or text), at most 4096
//   16   u32 width, u32 height of pixels
//   24   u64 bytes of the payload; all ones where it is left out and they are not known
#ifndef FORMATS_SOURCE_STREAM_H
#define FORMATS_SOURCE_STREAM_H

#include "formats/source.h"

struct source_stream;
// Finds FILE: in $BYOL_LIBEXEC, beside this program, or in ../libexec/byol. False when it is
// nowhere.
bool source_stream_find(const char *file, char *path, size_t size);
// Runs `arguments` (ended by NULL; the first is looked for in PATH unless it has a slash).
// `missing` is what to say when there is no such program. With `names_only` (source_open_names) the
// arguments have asked the program to leave the images' bytes out.
enum status source_stream_open(struct source_stream **out, const char *path,
                               const char *const *arguments, bool names_only, const char *missing,
                               struct error *error);

// The same for what comes out of `pipe`, which is closed with the stream; `program` is who writes
// it.
enum status source_stream_from(struct source_stream **out, const char *path, int pipe,
                               const char *program, bool names_only, struct error *error);

// As the functions of struct source_kind, with a struct source_stream as state.
enum status source_stream_next(void *state, struct source_entry *entry, struct error *error);
enum status source_stream_read(void *state, void *buf, size_t len, size_t *got,
                               struct error *error);
const char *const *source_stream_classes(void *state, uint32_t *count);
const char *source_stream_describe(void *state);
void source_stream_close(void **state);

#endif
