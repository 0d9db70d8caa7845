// Reading and writing of protocol buffers' wire format.
#include "formats/protobuf.h"

#include <stdlib.h>
#include <string.h>

#define VARINT_BYTES  10          // the longest
#define LENGTH_BYTES  5           // the longest of a length
#define MESSAGE_BYTES INT32_MAX   // Google's own readers take no more
#define NUMBER_MAX    0x1fffffffu // of fields

// --- reading -------------------------------------------------------------------------------------

struct protobuf_reader protobuf_read(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    return (struct protobuf_reader){.at = at, .end = len > 0 ? at + len : at};
}

struct protobuf_reader protobuf_enter(const struct protobuf_field *field)
{
    if (field->wire != PROTOBUF_LENGTH) {
        return (struct protobuf_reader){.fault = "a field is a number where a message should be"};
    }
    return protobuf_read(field->bytes, field->len);
}

static bool damaged(struct protobuf_reader *reader, const char *fault)
{
    reader->fault = fault;
    reader->at = reader->end;
    return false;
}

static bool read_varint(struct protobuf_reader *reader, uint64_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < VARINT_BYTES; i++) {
        if (reader->at == reader->end) {
            return damaged(reader, "a message ends inside a number");
        }
        uint8_t byte = *reader->at++;
        *value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            return i < VARINT_BYTES - 1 || byte <= 1 ||
                   damaged(reader, "a number has more than 64 bits");
        }
    }
    return damaged(reader, "a number is longer than ten bytes");
}

static bool read_fixed(struct protobuf_reader *reader, size_t bytes, uint64_t *value)
{
    if ((size_t)(reader->end - reader->at) < bytes) {
        return damaged(reader, "a message ends inside a number");
    }
    *value = 0;
    for (size_t i = 0; i < bytes; i++) {
        *value |= (uint64_t)reader->at[i] << (8 * i);
    }
    reader->at += bytes;
    return true;
}

static bool read_length(struct protobuf_reader *reader, struct protobuf_field *field)
{
    uint64_t len;
    if (!read_varint(reader, &len)) {
        return false;
    }
    if (len > (size_t)(reader->end - reader->at)) {
        return damaged(reader, "a field is longer than the message around it");
    }
    field->bytes = reader->at;
    field->len = (size_t)len;
    reader->at += len;
    return true;
}

bool protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field)
{
    *field = (struct protobuf_field){0};
    uint64_t tag;
    if (reader->at == reader->end || !read_varint(reader, &tag)) {
        return false;
    }
    if (tag >> 3 == 0 || tag >> 3 > NUMBER_MAX) {
        return damaged(reader, "a field has an impossible number");
    }
    field->number = (uint32_t)(tag >> 3);
    field->wire = (enum protobuf_wire)(tag & 7);
    switch (field->wire) {
    case PROTOBUF_VARINT:
        return read_varint(reader, &field->value);
    case PROTOBUF_FIXED64:
        return read_fixed(reader, 8, &field->value);
    case PROTOBUF_LENGTH:
        return read_length(reader, field);
    case PROTOBUF_FIXED32:
        return read_fixed(reader, 4, &field->value);
    }
    return damaged(reader, "a field has an unknown wire type");
}

bool protobuf_next_varint(struct protobuf_reader *reader, uint64_t *value)
{
    *value = 0;
    return reader->at != reader->end && read_varint(reader, value);
}

static float float_of(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, sizeof value);
    return value;
}

bool protobuf_next_float(struct protobuf_reader *reader, float *value)
{
    uint64_t bits = 0;
    bool read = reader->at != reader->end && read_fixed(reader, 4, &bits);
    *value = float_of(bits);
    return read;
}

float protobuf_float(const struct protobuf_field *field)
{
    return float_of(field->value);
}

double protobuf_double(const struct protobuf_field *field)
{
    double value;
    memcpy(&value, &field->value, sizeof value);
    return value;
}

// --- writing -------------------------------------------------------------------------------------

static bool make_room(struct protobuf_writer *writer, size_t more)
{
    if (writer->status != STATUS_OK) {
        return false;
    }
    if (more > MESSAGE_BYTES - writer->len) {
        writer->status = STATUS_LIMIT;
        return false;
    }
    if (more > writer->capacity - writer->len) {
        size_t capacity = (writer->len + more) * 2;
        uint8_t *grown = realloc(writer->bytes, capacity);
        if (grown == NULL) {
            writer->status = STATUS_NO_MEMORY;
            return false;
        }
        writer->bytes = grown;
        writer->capacity = capacity;
    }
    return true;
}

static size_t format_varint(uint8_t *to, uint64_t value)
{
    size_t len = 0;
    for (; value >= 0x80; value >>= 7) {
        to[len++] = (uint8_t)(value | 0x80);
    }
    to[len++] = (uint8_t)value;
    return len;
}

// Makes room for the tag and `more` bytes, and writes the tag.
static bool put_tag(struct protobuf_writer *writer, uint32_t number, enum protobuf_wire wire,
                    size_t more)
{
    if (more > MESSAGE_BYTES || !make_room(writer, VARINT_BYTES + more)) {
        writer->status = writer->status ? writer->status : STATUS_LIMIT;
        return false;
    }
    writer->len += format_varint(writer->bytes + writer->len, (uint64_t)number << 3 | wire);
    return true;
}

static void put_fixed(struct protobuf_writer *writer, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        writer->bytes[writer->len++] = (uint8_t)(value >> (8 * i));
    }
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

void protobuf_put_varint(struct protobuf_writer *writer, uint32_t number, uint64_t value)
{
    if (put_tag(writer, number, PROTOBUF_VARINT, VARINT_BYTES)) {
        writer->len += format_varint(writer->bytes + writer->len, value);
    }
}

void protobuf_put_float(struct protobuf_writer *writer, uint32_t number, float value)
{
    if (put_tag(writer, number, PROTOBUF_FIXED32, 4)) {
        put_fixed(writer, bits_of(value), 4);
    }
}

void protobuf_put_double(struct protobuf_writer *writer, uint32_t number, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (put_tag(writer, number, PROTOBUF_FIXED64, 8)) {
        put_fixed(writer, bits, 8);
    }
}

void protobuf_put_bytes(struct protobuf_writer *writer, uint32_t number, const void *bytes,
                        size_t len)
{
    if (len > MESSAGE_BYTES - VARINT_BYTES) {
        writer->status = writer->status ? writer->status : STATUS_LIMIT;
        return;
    }
    if (put_tag(writer, number, PROTOBUF_LENGTH, VARINT_BYTES + len)) {
        writer->len += format_varint(writer->bytes + writer->len, len);
        if (len > 0) {
            memcpy(writer->bytes + writer->len, bytes, len);
        }
        writer->len += len;
    }
}

void protobuf_put_string(struct protobuf_writer *writer, uint32_t number, const char *text)
{
    protobuf_put_bytes(writer, number, text, strlen(text));
}

void protobuf_put_packed_floats(struct protobuf_writer *writer, uint32_t number,
                                const float *values, size_t count)
{
    size_t mark = protobuf_begin(writer, number);
    for (size_t i = 0; i < count && make_room(writer, 4); i++) {
        put_fixed(writer, bits_of(values[i]), 4);
    }
    protobuf_end(writer, mark);
}

void protobuf_put_packed_varints(struct protobuf_writer *writer, uint32_t number,
                                 const int64_t *values, size_t count)
{
    size_t mark = protobuf_begin(writer, number);
    for (size_t i = 0; i < count && make_room(writer, VARINT_BYTES); i++) {
        writer->len += format_varint(writer->bytes + writer->len, (uint64_t)values[i]);
    }
    protobuf_end(writer, mark);
}

size_t protobuf_begin(struct protobuf_writer *writer, uint32_t number)
{
    put_tag(writer, number, PROTOBUF_LENGTH, 0);
    return writer->len;
}

// The length goes in front of what was put since the mark, which moves to make room.
void protobuf_end(struct protobuf_writer *writer, size_t mark)
{
    if (!make_room(writer, LENGTH_BYTES)) {
        return;
    }
    uint8_t length[VARINT_BYTES];
    size_t body = writer->len - mark, len = format_varint(length, body);
    memmove(writer->bytes + mark + len, writer->bytes + mark, body);
    memcpy(writer->bytes + mark, length, len);
    writer->len += len;
}

enum status protobuf_finish(const struct protobuf_writer *writer, struct error *error)
{
    switch (writer->status) {
    case STATUS_OK:
        return STATUS_OK;
    case STATUS_NO_MEMORY:
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for a message of more than %zu bytes", writer->len);
    default:
        return error_set(error, writer->status, NULL, NOWHERE, NOWHERE,
                         "a message above 2 GiB is more than protocol buffers hold");
    }
}

void protobuf_free(struct protobuf_writer *writer)
{
    free(writer->bytes);
    *writer = (struct protobuf_writer){0};
}
