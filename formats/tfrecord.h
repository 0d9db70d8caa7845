// TFRecord files: the framing of TensorFlow's data sets and of TensorBoard's event files.
//
//     u64 length | u32 masked CRC-32C of the length | the record | u32 masked CRC-32C of the record
//
// and the next one, to the end of the file; all little-endian. Masked: the CRC rotated right by 15
// bits, plus 0xa282ead8 (tensorflow/core/lib/io/record_writer.h,
// tensorflow/core/lib/hash/crc32c.h). A file may be compressed with gzip as a whole.
#ifndef FORMATS_TFRECORD_H
#define FORMATS_TFRECORD_H

#include "formats/status.h"

#include <stdbool.h>

#define TFRECORD_HEAD_BYTES 12
#define TFRECORD_FOOT_BYTES 4

// True when these first bytes of a file (16 are enough) are a record's length and its checksum.
bool tfrecord_starts(const void *bytes, size_t len);

// --- reading -------------------------------------------------------------------------------------

// Reads one file from front to back, in bounded memory. One thread at a time.
struct tfrecord_reader;
enum status tfrecord_open(struct tfrecord_reader **out, const char *path, struct error *error);
void tfrecord_close(struct tfrecord_reader **reader); // accepts a pointer to NULL
// The next record, valid until the next call; STATUS_END after the last. STATUS_CORRUPT for a
// record whose checksum differs and STATUS_LIMIT for one above LIMIT_TFRECORD_BYTES: the next call
// goes on behind it, unless its length cannot be trusted; then, and after any other error, every
// call fails alike. Errors say byte and record.
enum status tfrecord_next(struct tfrecord_reader *reader, const uint8_t **bytes, size_t *len,
                          struct error *error);
// False once no further record can be had.
bool tfrecord_goes_on(const struct tfrecord_reader *reader);
uint64_t tfrecord_offset(const struct tfrecord_reader *reader); // of the last record's frame
uint64_t tfrecord_number(const struct tfrecord_reader *reader); // of the last record, from 0
bool tfrecord_compressed(const struct tfrecord_reader *reader); // offsets are as unpacked

// --- writing -------------------------------------------------------------------------------------

// What stands before and behind a record.
void tfrecord_head(uint8_t head[TFRECORD_HEAD_BYTES], size_t len);
void tfrecord_foot(uint8_t foot[TFRECORD_FOOT_BYTES], const void *bytes, size_t len);

// Appends a framed record at the file's position with one write, so that a reader or a kill at most
// meets a last record that is cut. `path` is for errors.
enum status tfrecord_append(int fd, const char *path, const void *bytes, size_t len,
                            struct error *error);

#endif
