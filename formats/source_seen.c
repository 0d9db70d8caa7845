// Says what a path is that no kind of source knows, so that the person need not guess.
#include "formats/source.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK_BYTES 512u

struct beginning {
    const char *bytes;
    size_t len;
    const char *meaning;
};

// Most specific first.
static const struct beginning beginnings[] = {
    {"\xff\xd8\xff", 3, "a single JPEG file"},
    {"\x89PNG", 4, "a single PNG file"},
    {"GIF8", 4, "a GIF file"},
    {"RIFF", 4, "a RIFF file (WebP?)"},
    {"PK\x03\x04", 4, "a zip archive"},
    {"\x89HDF\r\n\x1a\n", 8, "an HDF5 file"},
    {"PAR1", 4, "a Parquet file"},
    {"ARROW1", 6, "an Arrow file"},
    {"\x93NUMPY", 6, "a NumPy array"},
    {"Rar!", 4, "a rar archive"},
    {"7z\xbc\xaf\x27\x1c", 6, "a 7z archive"},
    {"\x1f\x8b", 2, "gzip data without a tar inside"},
    {"\x28\xb5\x2f\xfd", 4, "zstd data without a tar inside"},
    {"\xfd"
     "7zXZ",
     5, "xz data without a tar inside"},
    {"BZh", 3, "bzip2 data without a tar inside"},
    {"\x7f"
     "ELF",
     4, "a program"},
    {"\x80\x02", 2, "a Python pickle"},
    {"\x80\x03", 2, "a Python pickle"},
    {"\x80\x04", 2, "a Python pickle"},
    {"\x80\x05", 2, "a Python pickle"},
};

static bool is_text(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] < ' ' && !isspace(bytes[i])) {
            return false;
        }
    }
    return true;
}

static const char *seen_in_file(const uint8_t *bytes, size_t len)
{
    if (len == 0) {
        return "an empty file";
    }
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        const struct beginning *beginning = &beginnings[i];
        if (len >= beginning->len && memcmp(bytes, beginning->bytes, beginning->len) == 0) {
            return beginning->meaning;
        }
    }
    return is_text(bytes, len) ? "a text file" : "a file of unknown content";
}

const char *source_seen(const char *path)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        return "a path that cannot be looked at";
    }
    if (S_ISDIR(about.st_mode)) {
        return "a folder";
    }
    FILE *file = S_ISREG(about.st_mode) ? fopen(path, "rb") : NULL;
    if (file == NULL) {
        return "a file that cannot be read";
    }
    uint8_t bytes[LOOK_BYTES];
    size_t len = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    return seen_in_file(bytes, len);
}
