// The two ways to store records, behind one table of functions for the dataset's writer. Reading
// needs none of this: the index answers where bytes lie.
#ifndef FORMATS_STORE_H
#define FORMATS_STORE_H

#include "formats/index.h"

// Who is told of safe points.
struct store_owner {
    void *context;
    // The first `records` records are stored whatever happens from now on to this process
    // (`synced`: or to the machine). With LMDB that is so once its transaction `mark` is committed,
    // which it is right after; a shard's mark is the number of shards.
    enum status (*checkpoint)(void *context, uint64_t records, uint64_t mark, bool synced,
                              struct error *error);
};

struct store {
    // Starts files in `directory`, which exists; what it holds of an earlier writer is looked at by
    // `has` and `resume` alone.
    enum status (*open)(void **state, const char *directory,
                        const struct dataset_writer_config *config, const struct store_owner *owner,
                        struct error *error);
    // Whether the safe point `mark` of an earlier writer can be gone on from.
    bool (*has)(void *state, uint64_t mark);
    // Goes on from it; the builder knows the records and files up to there.
    enum status (*resume)(void *state, const struct index_builder *builder, struct error *error);
    // Stores a record; sets file and offset of `record` where they are known already.
    enum status (*add)(void *state, const struct dataset_item *item,
                       const struct dataset_packed *packed, struct index_builder *builder,
                       struct dataset_record *record, struct error *error);
    // Completes and syncs the files; tells the builder their lengths and checksums, and where
    // records lie that add did not place.
    enum status (*finish)(void *state, struct index_builder *builder, struct error *error);
    void (*close)(void **state); // at any moment; accepts a pointer to NULL
};

extern const struct store store_lmdb, store_shards;

// --- frames of a shard (shard_frame.c) ---------------------------------------------------------

// A shard is a sequence of zstd frames whose contents together are a tar: frames with header, image
// and padding of a record, or of several small ones, and one with the two zero blocks that end a
// tar.
#define SHARD_MEMBER_BYTES 8192u // longer members have a frame to themselves

// Fills `packed` but for what it says of the image. A small image becomes a member of a frame that
// others share.
enum status shard_frame_pack(const struct dataset_item *item, struct dataset_packed *packed,
                             struct error *error);

typedef enum status shard_take(void *context, const void *bytes, size_t len, struct error *error);
// Gives the bytes of a frame in order; `item` is the one that was packed.
enum status shard_frame_pieces(const struct dataset_item *item, const struct dataset_packed *packed,
                               shard_take *take, void *context, struct error *error);

struct shard_framer;
enum status shard_framer_open(struct shard_framer **out, struct error *error);
void shard_framer_close(struct shard_framer **framer);
// The frame of some members' contents, one after the other.
enum status shard_framer_pack_members(struct shard_framer *framer, const uint8_t *content,
                                      size_t len, struct dataset_packed *packed,
                                      struct error *error);
// The frame that ends the tar.
enum status shard_framer_pack_end(struct shard_framer *framer, struct dataset_packed *packed,
                                  struct error *error);

#endif
