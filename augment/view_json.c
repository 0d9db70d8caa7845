// Parameters of a view as JSON: written for people to read and edit, read back strictly.
#include "augment/view.h"

#include <jansson.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define FLOAT_DIGITS 9 // enough for every float32 to come back as itself

static const char *const op_names[4] = {
    [VIEW_BRIGHTNESS] = "brightness",
    [VIEW_CONTRAST] = "contrast",
    [VIEW_SATURATION] = "saturation",
    [VIEW_HUE] = "hue",
};

enum member_type { MEMBER_UINT, MEMBER_BOOL, MEMBER_FLOAT };

// Every field but `crop` and `order`, which have their own shape.
static const struct member {
    const char *key;
    enum member_type type;
    size_t offset;
} members[] = {
    {"size", MEMBER_UINT, offsetof(struct view_params, size)},
    {"flip", MEMBER_BOOL, offsetof(struct view_params, flip)},
    {"jitter", MEMBER_BOOL, offsetof(struct view_params, jitter)},
    {"brightness", MEMBER_FLOAT, offsetof(struct view_params, brightness)},
    {"contrast", MEMBER_FLOAT, offsetof(struct view_params, contrast)},
    {"saturation", MEMBER_FLOAT, offsetof(struct view_params, saturation)},
    {"hue", MEMBER_FLOAT, offsetof(struct view_params, hue)},
    {"grayscale", MEMBER_BOOL, offsetof(struct view_params, grayscale)},
    {"blur", MEMBER_BOOL, offsetof(struct view_params, blur)},
    {"sigma", MEMBER_FLOAT, offsetof(struct view_params, sigma)},
    {"taps", MEMBER_UINT, offsetof(struct view_params, taps)},
    {"solarize", MEMBER_BOOL, offsetof(struct view_params, solarize)},
    {"threshold", MEMBER_FLOAT, offsetof(struct view_params, threshold)},
};
static const struct member crop_members[] = {
    {"x", MEMBER_UINT, offsetof(struct image_window, x)},
    {"y", MEMBER_UINT, offsetof(struct image_window, y)},
    {"width", MEMBER_UINT, offsetof(struct image_window, width)},
    {"height", MEMBER_UINT, offsetof(struct image_window, height)},
};
#define MEMBERS(table) (sizeof(table) / sizeof(table)[0])

static json_t *member_write(const struct member *member, const void *object)
{
    const char *field = (const char *)object + member->offset;
    switch (member->type) {
    case MEMBER_UINT:
        return json_integer(*(const uint32_t *)(const void *)field);
    case MEMBER_BOOL:
        return json_boolean(*(const bool *)(const void *)field);
    case MEMBER_FLOAT:
        return json_real((double)*(const float *)(const void *)field);
    }
    return NULL;
}

// json_object_set_new takes the value over, also when it fails, and refuses NULL.
static int members_write(json_t *json, const struct member *table, size_t count, const void *object)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        failed |= json_object_set_new(json, table[i].key, member_write(&table[i], object));
    }
    return failed;
}

enum status view_to_json(const struct view_params *params, char **json, struct error *error)
{
    *json = NULL;
    json_t *root = json_object(), *crop = json_object(), *order = json_array();
    int failed = members_write(crop, crop_members, MEMBERS(crop_members), &params->crop);
    for (int i = 0; i < 4; i++) {
        failed |= json_array_append_new(order, json_string(op_names[params->order[i] % 4]));
    }
    failed |= json_object_set_new(root, "crop", crop);
    failed |= members_write(root, members, MEMBERS(members), params);
    failed |= json_object_set_new(root, "order", order);
    if (!failed) {
        *json = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(FLOAT_DIGITS));
    }
    json_decref(root);
    return *json ? STATUS_OK
                 : error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                             "view parameters are not finite, or there is no memory to print them");
}

static bool member_read(const struct member *member, const json_t *value, void *object)
{
    char *field = (char *)object + member->offset;
    switch (member->type) {
    case MEMBER_UINT: {
        json_int_t number = json_integer_value(value);
        *(uint32_t *)(void *)field = (uint32_t)number;
        return json_is_integer(value) && number >= 0 && number <= UINT32_MAX;
    }
    case MEMBER_BOOL:
        *(bool *)(void *)field = json_is_true(value);
        return json_is_boolean(value);
    case MEMBER_FLOAT: {
        float number = (float)json_number_value(value);
        *(float *)(void *)field = number;
        return json_is_number(value) && isfinite(number);
    }
    }
    return false;
}

static enum status members_read(const json_t *json, const struct member *table, size_t count,
                                void *object, struct error *error)
{
    static const char *const expected[] = {[MEMBER_UINT] = "a whole number",
                                           [MEMBER_BOOL] = "true or false",
                                           [MEMBER_FLOAT] = "a number"};
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(json, table[i].key);
        if (value == NULL || !member_read(&table[i], value, object)) {
            return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                             "view parameter '%s' %s %s", table[i].key,
                             value ? "must be" : "is missing; it is", expected[table[i].type]);
        }
    }
    return STATUS_OK;
}

static enum status order_read(const json_t *json, uint8_t order[4], struct error *error)
{
    unsigned seen = 0;
    for (size_t i = 0; i < 4; i++) {
        const char *name = json_string_value(json_array_get(json, i));
        for (uint8_t op = 0; name && op < 4; op++) {
            if (strcmp(name, op_names[op]) == 0) {
                order[i] = op;
                seen |= 1u << op;
            }
        }
    }
    if (seen != 15 || json_array_size(json) != 4) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "view parameter 'order' must list brightness, contrast, saturation and "
                         "hue once each");
    }
    return STATUS_OK;
}

static enum status view_read(const json_t *root, struct view_params *params, struct error *error)
{
    const json_t *crop = json_object_get(root, "crop");
    if (json_object_size(root) != MEMBERS(members) + 2 ||
        json_object_size(crop) != MEMBERS(crop_members)) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE,
                         "view parameters must be an object of %zu members, its 'crop' of %zu",
                         MEMBERS(members) + 2, MEMBERS(crop_members));
    }
    enum status status = members_read(root, members, MEMBERS(members), params, error);
    if (status == STATUS_OK) {
        status = members_read(crop, crop_members, MEMBERS(crop_members), &params->crop, error);
    }
    if (status == STATUS_OK) {
        status = order_read(json_object_get(root, "order"), params->order, error);
    }
    return status;
}

enum status view_from_json(const char *json, size_t len, struct view_params *out,
                           struct error *error)
{
    json_error_t parse;
    json_t *root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &parse);
    if (root == NULL) {
        return error_set(error, STATUS_CONFIG, NULL, NOWHERE, NOWHERE, "line %d: %s", parse.line,
                         parse.text);
    }
    struct view_params params = {0};
    enum status status = view_read(root, &params, error);
    if (status == STATUS_OK) {
        *out = params;
    }
    json_decref(root);
    return status;
}
