// The wire format of protocol buffers, without schemas: what TFRecords hold, Caffe's Datum,
// TensorBoard's events and ONNX models.
//
// A message is a sequence of fields, each a tag (varint: number << 3 | wire type) and a value:
//
//     0 varint     7 bits a byte, low ones first, the top bit set where more follow; at most 10
//     1 fixed64    8 bytes, little-endian
//     2 length     varint, then so many bytes: text, bytes, a message, or packed numbers
//     5 fixed32    4 bytes
//
// (https://protobuf.dev/programming-guides/encoding). Groups (3 and 4) are refused.
#ifndef FORMATS_PROTOBUF_H
#define FORMATS_PROTOBUF_H

#include "formats/status.h"

#include <stdbool.h>

enum protobuf_wire {
    PROTOBUF_VARINT = 0,
    PROTOBUF_FIXED64 = 1,
    PROTOBUF_LENGTH = 2,
    PROTOBUF_FIXED32 = 5
};

// --- reading -------------------------------------------------------------------------------------

// Walks over one message in memory that the caller keeps. It never looks beyond the end.
struct protobuf_reader {
    const uint8_t *at, *end;
    const char *fault; // NULL, or why the message cannot be read ("a field is longer than …")
};

struct protobuf_field {
    uint32_t number;
    enum protobuf_wire wire;
    uint64_t value;       // varint, fixed32, fixed64: the bits
    const uint8_t *bytes; // length: into the message
    size_t len;
};

struct protobuf_reader protobuf_read(const void *bytes, size_t len);
// The message in a field. A field that has none (another wire type) reads as faulty.
struct protobuf_reader protobuf_enter(const struct protobuf_field *field);
// The next field. False at the end, and where the message is damaged: then `fault` is set.
bool protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field);
// The next number of a packed field that protobuf_enter entered. False as above.
bool protobuf_next_varint(struct protobuf_reader *reader, uint64_t *value);
bool protobuf_next_float(struct protobuf_reader *reader, float *value);

float protobuf_float(const struct protobuf_field *field);   // of a fixed32
double protobuf_double(const struct protobuf_field *field); // of a fixed64

// --- writing -------------------------------------------------------------------------------------

// A message that grows in memory. Start from {0}; a failure sticks and is what protobuf_finish
// says, so that no call in between needs a look. Lengths are as short as they can be, so the bytes
// are those of Google's own writers.
struct protobuf_writer {
    uint8_t *bytes;
    size_t len, capacity;
    enum status status;
};

void protobuf_put_varint(struct protobuf_writer *writer, uint32_t number, uint64_t value);
void protobuf_put_float(struct protobuf_writer *writer, uint32_t number, float value);
void protobuf_put_double(struct protobuf_writer *writer, uint32_t number, double value);
void protobuf_put_bytes(struct protobuf_writer *writer, uint32_t number, const void *bytes,
                        size_t len);
void protobuf_put_string(struct protobuf_writer *writer, uint32_t number, const char *text);
void protobuf_put_packed_floats(struct protobuf_writer *writer, uint32_t number,
                                const float *values, size_t count);
void protobuf_put_packed_varints(struct protobuf_writer *writer, uint32_t number,
                                 const int64_t *values, size_t count);
// What is put between the two is a message of its own, in field `number`. `begin` returns the mark
// that `end` wants.
size_t protobuf_begin(struct protobuf_writer *writer, uint32_t number);
void protobuf_end(struct protobuf_writer *writer, size_t mark);

// STATUS_OK when everything was put; the message is writer->bytes, writer->len. Setting `len` to 0
// starts the next one in the same memory.
enum status protobuf_finish(const struct protobuf_writer *writer, struct error *error);
void protobuf_free(struct protobuf_writer *writer);

#endif
