// The index file of a dataset: where every record lies, checksummed so that any flipped bit is
// noticed when it is opened. Byte tables: formats/README.md.
#ifndef FORMATS_INDEX_H
#define FORMATS_INDEX_H

#include "formats/dataset.h"

#define INDEX_FILE_NAME "index.byol"

// Order in the file.
enum index_section {
    INDEX_FILES,        // 16 bytes each
    INDEX_FILE_NAMES,   // strings, NUL-terminated, one after the other
    INDEX_RECORDS,      // 48 bytes each
    INDEX_RECORD_NAMES, // strings
    INDEX_CLASS_NAMES,  // strings
    INDEX_PROVENANCE,   // one string
    INDEX_SECTIONS
};

struct index_file {
    uint64_t length;
    uint32_t crc; // CRC-32C of the whole file
};

// A checked index. Nothing in it needs checking again: every extent lies inside its file and none
// overlap, every label has a name, every string is terminated and keeps the rules of
// formats/name.h.
struct index {
    uint8_t *bytes; // the file
    size_t len;
    uint32_t version;
    enum dataset_store store;
    uint64_t count[INDEX_SECTIONS];          // entries or strings of each section
    const uint8_t *section[INDEX_SECTIONS];  // into `bytes`
    uint64_t section_length[INDEX_SECTIONS]; // bytes
    uint64_t *string_offset[INDEX_SECTIONS]; // of string sections: where each starts
    uint64_t id;                             // hash of all bytes before the trailer
    uint32_t max_stored_length, max_frame_length;
    uint64_t max_pixels;
    uint32_t max_width;
    uint64_t widest; // record whose image needs the largest planes (image_planes_bytes)
};

// Reads and checks everything. STATUS_NOT_FOUND, _TRUNCATED, _CORRUPT, _VERSION or _LIMIT.
enum status index_read(struct index *out, const char *path, struct error *error);
void index_free(struct index *index); // harmless on {0}

struct index_file index_file(const struct index *index, uint64_t file);
struct dataset_record index_record(const struct index *index, uint64_t record);
const char *index_string(const struct index *index, enum index_section section, uint64_t number);

// --- writing (index_write.c) -------------------------------------------------------------------

// Grows in memory while a dataset is written. Starts from {0} with `store` set.
struct index_builder {
    enum dataset_store store;
    uint64_t id; // of the index that was written
    struct {
        uint8_t *bytes;
        size_t len, capacity;
        uint64_t count;
    } part[INDEX_SECTIONS];
};

enum status index_builder_add_file(struct index_builder *builder, const char *name,
                                   const struct index_file *file, struct error *error);
enum status index_builder_add_record(struct index_builder *builder, const char *name,
                                     const struct dataset_record *record, struct error *error);
// Changes a record, for stores that know only later where it lies.
void index_builder_set_record(struct index_builder *builder, uint64_t number,
                              const struct dataset_record *record);
struct dataset_record index_builder_record(const struct index_builder *builder, uint64_t record);
enum status index_builder_add_class(struct index_builder *builder, const char *name,
                                    struct error *error);
enum status index_builder_set_provenance(struct index_builder *builder, const char *text,
                                         struct error *error);
// Writes the file durably.
enum status index_builder_write(struct index_builder *builder, const char *path,
                                struct error *error);
void index_builder_free(struct index_builder *builder);

// --- the layout, shared by both sides ----------------------------------------------------------

#define INDEX_VERSION       2u // written when needed: records share frames, or are recoded JPEGs
#define INDEX_VERSION_FIRST 1u // else
#define INDEX_ENDIAN_MARK   0x01020304u
#define INDEX_TABLE_AT      24u // section table: offset, length, count (8 bytes each), crc, zero
#define INDEX_TABLE_ENTRY   32u
#define INDEX_HEADER_CRC_AT (INDEX_TABLE_AT + INDEX_TABLE_ENTRY * INDEX_SECTIONS + 4u)
#define INDEX_HEADER_BYTES  (INDEX_HEADER_CRC_AT + 4u)
#define INDEX_TRAILER_BYTES 16u // magic, hash
#define INDEX_FILE_BYTES    16u
#define INDEX_RECORD_BYTES  48u

extern const uint8_t index_magic[8], index_trailer_magic[8];

// Hash of whole 8-byte words. Each step is a bijection of the state and of the word, so a change
// within any one word always changes the result. Starts from 0.
uint64_t index_hash(uint64_t hash, const uint8_t *bytes, size_t len);

uint32_t index_load32(const uint8_t *at);
uint64_t index_load64(const uint8_t *at);
void index_store32(uint8_t *at, uint32_t value);
void index_store64(uint8_t *at, uint64_t value);
struct dataset_record index_load_record(const uint8_t *at);
void index_store_record(uint8_t *at, const struct dataset_record *record);
// Whether both lie in one frame, `next` behind `last`.
bool index_share_frame(const struct dataset_record *last, const struct dataset_record *next);

#endif
