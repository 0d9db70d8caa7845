// What one value of a key-value store is: an image file, or a picture and its label in one of the
// forms that people keep in LMDBs.
//
//   image       a JPEG or PNG file, nothing else
//   Datum       Caffe's protocol buffer: 1 channels, 2 height, 3 width, 4 data, 5 label, 6 float
//               data (refused), 7 encoded. Raw data are planes, B G R or grey
//               (BVLC/caffe, src/caffe/proto/caffe.proto)
//   pickle      (image file, label), or (image file,): formats/pickle.h
//   msgpack     [image file, label] (msgpack.org's specification)
#ifndef FORMATS_SOURCE_VALUE_H
#define FORMATS_SOURCE_VALUE_H

#include "formats/source_content.h"

enum source_value_form {
    SOURCE_VALUE_IMAGE,
    SOURCE_VALUE_DATUM_FILE,
    SOURCE_VALUE_DATUM_RAW,
    SOURCE_VALUE_PICKLE,
    SOURCE_VALUE_MSGPACK,
    SOURCE_VALUE_FORMS
};

struct source_value {
    enum source_value_form form;
    struct source_range image; // within the value
    enum source_pixels pixels;
    uint64_t width, height; // of raw pixels
    bool labelled;
    int64_t label;
    const char *ending; // ".jpg", ".png"
};

// STATUS_UNSUPPORTED, with what was seen, for everything else. Reads as little as it can.
enum status source_value_sniff(struct source_value *value, struct source_range *range,
                               struct error *error);
const char *source_value_form_name(enum source_value_form form);

#endif
