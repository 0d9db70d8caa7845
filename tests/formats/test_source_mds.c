// MosaicML's streaming datasets, built by hand: encodings, compression, checksums, indexes that
// lie.
#include "formats/digest.h"
#include "formats/image.h"
#include "tests/support/picture.h"
#include "tests/support/program.h"
#include "tests/support/source_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

static char path[300];
static struct source_reading reading;
static uint8_t *jpeg;
static size_t jpeg_len;
static uint8_t shard[16384];
static size_t shard_len;

static int setup(void **state)
{
    (void)state;
    struct image image = {0};
    scratch_make(&scratch);
    snprintf(path, sizeof path, "%s/in", scratch.path);
    mkdir(path, 0755);
    picture_fill(&image, 24, 16, 1);
    jpeg = picture_jpeg(&image, &(struct picture_jpeg){.quality = 50}, &jpeg_len);
    image_free(&image);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    source_reading_free(&reading);
    free(jpeg);
    scratch_remove(&scratch);
    return 0;
}

// --- writing -----------------------------------------------------------------------------------

static void write_file(const char *name, const void *bytes, size_t len)
{
    char file[400];
    snprintf(file, sizeof file, "%s/%s", path, name);
    source_case_write(file, bytes, len);
}

static void put32(size_t at, size_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        shard[at + i] = (uint8_t)(value >> 8 * i);
    }
}

static void append(const void *bytes, size_t len)
{
    assert_true(len <= sizeof shard - shard_len);
    memcpy(shard + shard_len, bytes, len);
    shard_len += len;
}

// A shard of two samples: the size of their image, the image, an i64 label 3 and 4.
static void make_shard(const void *image, size_t image_len)
{
    shard_len = 16;
    append("{}", 2);
    put32(0, 2);
    for (uint8_t label = 3; label <= 4; label++) {
        put32(4 * (size_t)(label - 2), shard_len);
        put32(shard_len, image_len);
        shard_len += 4;
        append(image, image_len);
        append((uint8_t[8]){label}, 8);
    }
    put32(12, shard_len);
}

struct index {
    const char *encoding, *compression, *basename, *raw_hashes, *zip;
    size_t bytes;
    int samples;
};

// The index of that shard; what `how` leaves out is as it should be.
static void write_index(const struct index *how)
{
    char text[1500];
    snprintf(text, sizeof text,
             "{\"shards\": [{\"column_encodings\": [\"%s\", \"int\"], \"column_names\": "
             "[\"x\", \"y\"], \"column_sizes\": [null, 8], \"compression\": %s, \"format\": "
             "\"mds\", \"hashes\": [], \"raw_data\": {\"basename\": \"%s\", \"bytes\": %zu, "
             "\"hashes\": {%s}}, \"samples\": %d, \"size_limit\": null, \"version\": 2, "
             "\"zip_data\": %s}], \"version\": 2}",
             how->encoding ? how->encoding : "jpeg", how->compression ? how->compression : "null",
             how->basename ? how->basename : "shard.00000.mds", how->bytes ? how->bytes : shard_len,
             how->raw_hashes ? how->raw_hashes : "", how->samples ? how->samples : 2,
             how->zip ? how->zip : "null");
    write_file("index.json", text, strlen(text));
}

static void write_plain(void)
{
    make_shard(jpeg, jpeg_len);
    write_file("shard.00000.mds", shard, shard_len);
}

static void expect(const char *members)
{
    source_reading_good(&reading, path);
    assert_string_equal(reading.members, members);
}

// --- good ones ---------------------------------------------------------------------------------

static void test_plain(void **state)
{
    (void)state;
    write_plain();
    write_index(&(struct index){0});
    expect("in/000000000.jpg 3\nin/000000001.jpg 4\n");
    assert_int_equal(reading.first_len, jpeg_len);
    assert_memory_equal(reading.first, jpeg, jpeg_len);
    assert_string_equal(reading.description,
                        "MosaicML MDS: 1 shards, images from 'x' (jpeg), labels from 'y'");
}

static void make_zip(char *zip, size_t size)
{
    uint8_t packed[20000];
    make_shard(jpeg, jpeg_len);
    size_t len = ZSTD_compress(packed, sizeof packed, shard, shard_len, 3);
    assert_false(ZSTD_isError(len));
    write_file("shard.00000.mds.zstd", packed, len);
    snprintf(zip, size, "{\"basename\": \"shard.00000.mds.zstd\", \"bytes\": %zu, \"hashes\": {}}",
             len);
}

static void test_compressed(void **state)
{
    (void)state;
    char zip[200];
    make_zip(zip, sizeof zip);
    write_index(&(struct index){.compression = "\"zstd:3\"", .zip = zip});
    expect("in/000000000.jpg 3\nin/000000001.jpg 4\n");
    assert_memory_equal(reading.first, jpeg, jpeg_len);
    write_index(&(struct index){.compression = "\"br:3\"", .zip = zip});
    source_reading_refused(path, STATUS_UNSUPPORTED, "compressed with 'br:3'");
    write_index(&(struct index){.compression = "\"zstd\"", .zip = zip, .bytes = shard_len - 1});
    source_reading_refused(path, STATUS_CORRUPT, "longer than the index says");
    write_index(&(struct index){.compression = "\"zstd\"", .zip = zip, .bytes = shard_len + 1});
    source_reading_refused(path, STATUS_TRUNCATED, "the shard ends after");
}

static void test_pil(void **state)
{
    (void)state;
    struct image_decoder *decoder;
    struct image image = {0};
    make_shard("\2\0\0\0\1\0\0\0\3\0\0\0RGB\1\2\3\4\5\6", 21);
    write_file("shard.00000.mds", shard, shard_len);
    write_index(&(struct index){.encoding = "pil"});
    expect("in/000000000.png 3\nin/000000001.png 4\n");
    assert_int_equal(image_decoder_open(&decoder, NULL), STATUS_OK);
    assert_int_equal(image_decode(decoder, reading.first, reading.first_len, NULL, &image, NULL),
                     STATUS_OK);
    assert_memory_equal(image.pixels, "\1\2\3\4\5\6", 6);
    image_free(&image);
    image_decoder_close(&decoder);
    make_shard("\2\0\0\0\1\0\0\0\4\0\0\0RGBA\1\2\3\4\5\6\7\x8", 24);
    write_file("shard.00000.mds", shard, shard_len);
    write_index(&(struct index){.encoding = "pil"});
    source_reading_bad(path, STATUS_CORRUPT, "mode RGBA");
    make_shard("\2\0\0\0\1\0\0\0\xff\xff\xff\xffRGB", 15);
    write_file("shard.00000.mds", shard, shard_len);
    write_index(&(struct index){.encoding = "pil"});
    source_reading_bad(path, STATUS_CORRUPT, "another mode");
}

static void test_checksums(void **state)
{
    (void)state;
    char good[200], text[DIGEST_KINDS][DIGEST_TEXT];
    write_plain();
    for (int kind = 0; kind < DIGEST_KINDS; kind++) {
        struct digest digest;
        digest_begin(&digest, (enum digest_kind)kind);
        digest_add(&digest, shard, shard_len);
        digest_end(&digest, text[kind]);
    }
    snprintf(good, sizeof good, "\"sha1\": \"%s\", \"xxh64\": \"%s\", \"md5\": \"unknown\"",
             text[DIGEST_SHA1], text[DIGEST_XXH64]);
    write_index(&(struct index){.raw_hashes = good});
    expect("in/000000000.jpg 3\nin/000000001.jpg 4\n");
    write_index(&(struct index){.raw_hashes = "\"sha1\": \"1234\""});
    source_reading_refused(path, STATUS_CORRUPT, "the index says 1234");
    write_index(&(struct index){.raw_hashes = "\"xxh64\": \"1234\""});
    source_reading_refused(path, STATUS_CORRUPT, "its xxh64 is");
}

// The specifications' own examples, in pieces of every size.
static void test_digests(void **state)
{
    (void)state;
    static const struct {
        enum digest_kind kind;
        const char *text, *want;
    } cases[] = {
        {DIGEST_SHA1, "", "da39a3ee5e6b4b0d3255bfef95601890afd80709"},
        {DIGEST_SHA1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
        {DIGEST_SHA1, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
        {DIGEST_XXH64, "", "ef46db3751d8e999"},
        {DIGEST_XXH64, "abc", "44bc2cf5ad770999"},
        {DIGEST_XXH64, "Nobody inspects the spammish repetition", "fbcea83c8a378bf1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        for (size_t piece = 1; piece <= len + 1; piece++) {
            struct digest digest;
            char text[DIGEST_TEXT];
            digest_begin(&digest, cases[i].kind);
            for (size_t at = 0; at < len; at += piece) {
                digest_add(&digest, cases[i].text + at, len - at < piece ? len - at : piece);
            }
            digest_end(&digest, text);
            assert_string_equal(text, cases[i].want);
        }
    }
}

// --- bad ones ----------------------------------------------------------------------------------

static void test_index_lies(void **state)
{
    (void)state;
    static const char *const escapes[] = {"../shard.mds", "/etc/passwd", ".hidden", "a/b", ""};
    write_plain();
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        write_index(&(struct index){.basename = escapes[i]});
        source_reading_refused(path, STATUS_CORRUPT, "nothing usable about a shard's raw_data");
    }
    write_index(&(struct index){.basename = "other.mds"});
    source_reading_refused(path, STATUS_NOT_FOUND, "open");
    write_index(&(struct index){.bytes = shard_len + 1});
    source_reading_refused(path, STATUS_TRUNCATED, "the index says");
    write_index(&(struct index){.samples = 3});
    source_reading_refused(path, STATUS_CORRUPT, "2 samples; the index says 3");
    write_index(&(struct index){.encoding = "jpeg_array"});
    source_reading_refused(path, STATUS_UNSUPPORTED, "x (jpeg_array), y (int)");
    write_index(&(struct index){.encoding = "pkl"});
    source_reading_refused(path, STATUS_UNSUPPORTED, "x (pkl)");
    write_file("index.json", "{\"version\": 3, \"shards\": []}", 28);
    source_reading_refused(path, STATUS_VERSION, "another version");
    write_file("index.json", "{\"version\": 2, \"shards\": [7]}", 29);
    source_reading_refused(path, STATUS_UNSUPPORTED, "only mds is read");
}

static void test_link(void **state)
{
    (void)state;
    char file[400];
    write_plain();
    write_index(&(struct index){.basename = "link.mds"});
    snprintf(file, sizeof file, "%s/link.mds", path);
    assert_int_equal(symlink("shard.00000.mds", file), 0);
    source_reading_refused(path, STATUS_IO, "open");
}

// The shard with 32 bits of it changed.
static void write_lie(size_t at, size_t value)
{
    make_shard(jpeg, jpeg_len);
    put32(at, value);
    write_file("shard.00000.mds", shard, shard_len);
    write_index(&(struct index){0});
}

static void test_shard_that_is_not_the_indexes(void **state)
{
    (void)state;
    write_lie(0, 0xffffffff);
    source_reading_refused(path, STATUS_CORRUPT, "4294967295 samples");
}

static void test_damaged_sample_is_a_bad_image(void **state)
{
    (void)state;
    static const struct {
        size_t at, value;
        const char *text;
    } cases[] = {
        {4, 3, "outside the shard, or before"},
        {8, 17, "outside the shard, or before"},
        {12, 0xffffffff, "outside the shard, or before"},
        {18, 0xffffffff, "its columns take"},
        {22, 0, "neither a JPEG nor a PNG"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_lie(cases[i].at, cases[i].value);
        source_reading_bad(path, STATUS_CORRUPT, cases[i].text);
    }
    write_lie(18, jpeg_len + 1);
    source_reading_bad(path, STATUS_CORRUPT, "its columns take");
}

// What a bad offset takes with it: the samples on both sides.
static void test_samples_around_a_bad_offset(void **state)
{
    (void)state;
    write_lie(4, 3);
    expect("in/000000000 -1 !\nin/000000001.jpg 4\n");
    assert_memory_equal(reading.first, jpeg, jpeg_len);
    source_reading_free(&reading);
    write_lie(12, shard_len + 1);
    expect("in/000000000.jpg 3\nin/000000001 -1 !\n");
    assert_int_equal(reading.bad.record, 1);
    source_reading_free(&reading);
    write_lie(8, shard_len - 1);
    expect("in/000000000 -1 !\nin/000000001 -1 !\n");
}

// A label as text is a number from its first to its last character.
static void test_text_labels(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *members;
    } cases[] = {
        {"17", "in/000000000.jpg 17\n"},   {"-1", "in/000000000.jpg -1\n"},
        {"1x", "in/000000000.jpg -1 !\n"}, {"x", "in/000000000.jpg -1 !\n"},
        {"", "in/000000000.jpg -1 !\n"},   {"99999999999999999999", "in/000000000.jpg -1 !\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i].text);
        char index[500];
        shard_len = 12;
        put32(0, 1);
        put32(4, shard_len);
        append((uint8_t[8]){0}, 8);
        put32(12, jpeg_len);
        put32(16, len);
        append(jpeg, jpeg_len);
        append(cases[i].text, len);
        put32(8, shard_len);
        write_file("shard.00000.mds", shard, shard_len);
        snprintf(index, sizeof index,
                 "{\"shards\": [{\"column_encodings\": [\"jpeg\", \"str_int\"], \"column_names\": "
                 "[\"x\", \"y\"], \"column_sizes\": [null, null], \"format\": \"mds\", "
                 "\"raw_data\": {\"basename\": \"shard.00000.mds\", \"bytes\": %zu}, "
                 "\"samples\": 1}], \"version\": 2}",
                 shard_len);
        write_file("index.json", index, strlen(index));
        expect(cases[i].members);
        source_reading_free(&reading);
    }
}

static void test_mutants(void **state)
{
    (void)state;
    char zip[200], file[400];
    make_zip(zip, sizeof zip);
    write_index(&(struct index){.compression = "\"zstd\"", .zip = zip});
    snprintf(file, sizeof file, "%s/shard.00000.mds.zstd", path);
    source_case_mutants(path, file, 0, 200);
    snprintf(file, sizeof file, "%s/index.json", path);
    source_case_mutants(path, file, 0, 300);
    write_plain();
    write_index(&(struct index){0});
    snprintf(file, sizeof file, "%s/shard.00000.mds", path);
    source_case_mutants(path, file, 0, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compressed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pil, setup, teardown),
        cmocka_unit_test_setup_teardown(test_checksums, setup, teardown),
        cmocka_unit_test(test_digests),
        cmocka_unit_test_setup_teardown(test_index_lies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_link, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shard_that_is_not_the_indexes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_sample_is_a_bad_image, setup, teardown),
        cmocka_unit_test_setup_teardown(test_samples_around_a_bad_offset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text_labels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mutants, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
