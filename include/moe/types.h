/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moe/types.h - the words that both sides of the plugin boundary share.
 *
 * Rules that hold for every struct in moe/ that crosses the boundary:
 *
 *  - it starts with struct_size, which the side that OWNS the struct sets to
 *    its own sizeof(); the other side tests MOE_HAS() before it reads a field
 *    that is newer than abi minor 0;
 *  - it grows only at the end, and never has implicit padding: a field added
 *    later must not land in bytes an older plugin left uninitialised;
 *  - it holds no C enum, bool, long, bit-field, FILE or errno.
 *
 * Structs marked FROZEN carry no struct_size, are used in arrays, and never
 * change within an abi major.  The ABI is defined for 64-bit targets only.
 */

#ifndef MOE_TYPES_H
#define MOE_TYPES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
#    define MOE_STATIC_ASSERT(c, m) static_assert(c, m)
extern "C" {
#else
#    define MOE_STATIC_ASSERT(c, m) _Static_assert(c, m)
#endif

MOE_STATIC_ASSERT(sizeof(void *) == 8, "the plugin ABI is 64-bit only");

/* The last field ends the struct: no tail padding for a later field to hide in. */
#define MOE_NO_TAIL(type, last)                                               \
    MOE_STATIC_ASSERT(sizeof(struct type)                                     \
                          == offsetof(struct type, last)                      \
                                 + sizeof(((struct type *) 0)->last),         \
                      #type " has tail padding")

/* True if the owner of *p was compiled with a header that had this field. */
#define MOE_HAS(p, type, field)                                               \
    ((p)->struct_size                                                         \
     >= offsetof(struct type, field) + sizeof(((struct type *) 0)->field))

/*
 * Status.  Negative is failure; the ranges say what is still usable after it,
 * so that a caller can choose a recovery without knowing each code.
 */
typedef int32_t moe_status;

#define MOE_OK            0
#define MOE_PENDING       1   /* not an error: the work has not finished      */

#define MOE_E_INVAL       (-1)  /*  -1..-19  this request only                */
#define MOE_E_UNSUPPORTED (-2)
#define MOE_E_NOT_FOUND   (-3)
#define MOE_E_CORRUPT     (-4)  /*           model bytes fail a check         */
#define MOE_E_IO          (-5)
#define MOE_E_CANCELED    (-6)
#define MOE_E_OVER_BUDGET (-20) /* -20..-39  memory: free some and try again; */
#define MOE_E_NOMEM       (-21) /*           -20 the ledger said no, -21 the
                                             system or the device did         */
#define MOE_E_DEVICE      (-40) /* -40..-59  device: close it, open it again  */
#define MOE_E_TIMEOUT     (-41)
#define MOE_E_ABI         (-60) /* -60..-79  plugin: do not use it            */
#define MOE_E_ABSENT      (-61) /*           no such hardware here; expected  */
#define MOE_E_INTERNAL    (-80)

/*
 * Details of a failure.  The CALLER owns it (usually on its stack) and may
 * pass NULL.  The function that first detects the failure fills it; functions
 * that only pass a status up leave it alone.
 */
struct moe_error {
    uint32_t   struct_size;
    moe_status status;
    int64_t    native;    /* cudaError_t, hipError_t, errno...; 0 if none    */
    char       text[496]; /* one line, NUL-terminated, no trailing newline   */
};
MOE_NO_TAIL(moe_error, text);

/* Activations and universal weights are F32, F16 or BF16; the integer types
 * are for ids, counts and packed bytes.  A closed set within a major. */
#define MOE_F32  1u
#define MOE_F16  2u
#define MOE_BF16 3u
#define MOE_U32  4u
#define MOE_U8   5u /* raw bytes of a packed plane; never an activation      */
#define MOE_I32  6u
#define MOE_DTYPE_BIT(t) (1u << (t))

/* Bytes of one element of a type above; 0 for anything else. */
static inline uint32_t
moe_dtype_size(uint32_t dtype)
{
    switch (dtype) {
    case MOE_F32:
    case MOE_U32:
    case MOE_I32:
        return 4;
    case MOE_F16:
    case MOE_BF16:
        return 2;
    case MOE_U8:
        return 1;
    default:
        return 0;
    }
}

/*
 * Fill *err, if there is one, and return status.  native is an errno, a
 * cudaError_t and the like, or 0.  The text is cut at the field's size; no
 * allocation, any thread.
 */
__attribute__((__format__(__printf__, 4, 5))) static inline moe_status
moe_fail(struct moe_error *err, moe_status status, int64_t native,
         const char *fmt, ...)
{
    va_list args;

    if (err == NULL)
        return status;
    err->status = status;
    err->native = native;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    return status;
}

#ifdef __cplusplus
}
#endif
#endif /* MOE_TYPES_H */
