// The keys under which a tf.train.Example holds an image and what is told of it.
//
//     Example   { 1: Features }          (tensorflow/core/example/example.proto, feature.proto)
//     Features  { 1: map: { 1: key, 2: Feature } … }
//     Feature   { 1: BytesList { 1: bytes … } } or { 2: FloatList } or { 3: Int64List { 1: … } }
//
// | written by                 | image         | label                      | name                |
// | TensorFlow Datasets        | image         | label, from 0              | file_name, else id  |
// | ImageNet's classic scripts | image/encoded | image/class/label, from 1  | image/filename      |
// | TF-Slim                    | image/encoded | image/class/label, from 0  | none                |
//
// A label's class is called as image/class/synset says ("n01440764", as the folders of ImageNet
// are), else as image/class/text.
//
// TF-Slim's are told by image/format without any of image/filename, image/class/text,
// image/class/synset, image/colorspace and image/channels, which the classic scripts write.
#ifndef FORMATS_EXAMPLE_H
#define FORMATS_EXAMPLE_H

#include "formats/status.h"

#include <stdbool.h>

// Which keys count; found in the first record of a file. NULL: there is none.
struct example_keys {
    const char *image, *label, *class_name, *name;
    int64_t first_label; // 0 or 1
};

// What a record holds. Pointers go into the record.
struct example {
    const uint8_t *image;
    size_t image_len;
    const char *name; // not terminated
    size_t name_len;
    const char *class_name; // not terminated
    size_t class_name_len;
    int32_t label; // from 0; -1: none
};

// STATUS_CORRUPT for a record that is no Example, STATUS_UNSUPPORTED with the keys that it has
// where they are not known.
enum status example_keys_find(struct example_keys *keys, const void *bytes, size_t len,
                              struct error *error);
// STATUS_CORRUPT, with the reason, for a record that these keys do not fit.
enum status example_parse(struct example *example, const struct example_keys *keys,
                          const void *bytes, size_t len, struct error *error);

#endif
