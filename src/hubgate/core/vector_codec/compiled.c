/* Single-precision vectors to and from JSON: the compiled twin of `pure.py`, which defines what each function does.
 *
 * Only what walks the numbers of a vector is here, and nothing else of hubgate is compiled. It uses the limited API of
 * Python 3.11, so that one build serves every later version.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The bytes of a vector are little-endian. On other machines hubgate uses pure.py."
#endif

/* ---- Bytes of floats ------------------------------------------------------------------------------------------- */

/* Whether no number is NaN or infinite. */
static int are_finite(const char *numbers, Py_ssize_t count)
{
    uint32_t found = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, numbers + 4 * i, 4);
        found |= (bits & 0x7f800000) == 0x7f800000;
    }
    return !found;
}

static PyObject *is_finite(PyObject *module, PyObject *item)
{
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int finite = are_finite(view.buf, view.len / 4);
    PyBuffer_Release(&view);
    return PyBool_FromLong(finite);
}

/* ---- Floats to decimal digits ------------------------------------------------------------------------------------
 *
 * The method is Raffaele Giulietti's "The Schubfach way to render doubles" (2020), in single precision: k is the largest
 * power of ten such that the interval of numbers that round to the float contains a multiple of 10^k. So either one
 * multiple of 10^(k+1) is in it, or the nearest multiple of 10^k has the fewest digits.
 */

#define EXPONENTS 256
#define SMALLEST_K (-45)

/* 10^-k for k from SMALLEST_K, scaled by a power of two to 64 bits, and rounded up. */
static const uint64_t POWERS[] = {
    0xb35dbf821ae4f38c, 0x8f7e32ce7bea5c70, 0xe596b7b0c643c71a, 0xb7abc627050305ae, 0x92efd1b8d0cf37bf,
    0xeb194f8e1ae525fe, 0xbc143fa4e250eb32, 0x96769950b50d88f5, 0xf0bdc21abb48db21, 0xc097ce7bc90715b4,
    0x9a130b963a6c115d, 0xf684df56c3e01bc7, 0xc5371912364ce306, 0x9dc5ada82b70b59e, 0xfc6f7c4045812297,
    0xc9f2c9cd04674edf, 0xa18f07d736b90be6, 0x813f3978f8940985, 0xcecb8f27f4200f3b, 0xa56fa5b99019a5c9,
    0x84595161401484a1, 0xd3c21bcecceda101, 0xa968163f0a57b401, 0x878678326eac9001, 0xd8d726b7177a8001,
    0xad78ebc5ac620001, 0x8ac7230489e80001, 0xde0b6b3a76400001, 0xb1a2bc2ec5000001, 0x8e1bc9bf04000001,
    0xe35fa931a0000001, 0xb5e620f480000001, 0x9184e72a00000001, 0xe8d4a51000000001, 0xba43b74000000001,
    0x9502f90000000001, 0xee6b280000000001, 0xbebc200000000001, 0x9896800000000001, 0xf424000000000001,
    0xc350000000000001, 0x9c40000000000001, 0xfa00000000000001, 0xc800000000000001, 0xa000000000000001,
    0x8000000000000001, 0xcccccccccccccccd, 0xa3d70a3d70a3d70b, 0x83126e978d4fdf3c, 0xd1b71758e219652c,
    0xa7c5ac471b478424, 0x8637bd05af6c69b6, 0xd6bf94d5e57a42bd, 0xabcc77118461cefd, 0x89705f4136b4a598,
    0xdbe6fecebdedd5bf, 0xafebff0bcb24aaff, 0x8cbccc096f5088cc, 0xe12e13424bb40e14, 0xb424dc35095cd810,
    0x901d7cf73ab0acda, 0xe69594bec44de15c, 0xb877aa3236a4b44a, 0x9392ee8e921d5d08, 0xec1e4a7db69561a6,
    0xbce5086492111aeb, 0x971da05074da7bef, 0xf1c90080baf72cb2, 0xc16d9a0095928a28, 0x9abe14cd44753b53,
    0xf79687aed3eec552, 0xc612062576589ddb, 0x9e74d1b791e07e49, 0xfd87b5f28300ca0e, 0xcad2f7f5359a3b3f,
    0xa2425ff75e14fc32, 0x81ceb32c4b43fcf5,
};

typedef struct {
    uint64_t power; /* of POWERS */
    int k;
    int shift;
} Scale;

/* For each exponent of a float; the second for powers of two, to which the next smaller float is half as far. */
static Scale SCALES[2][EXPONENTS];

/* The usual numbers: from a millionth to below ten. */
#define A_MILLIONTH 0x358637bd
#define ONE 0x3f800000
#define TEN 0x41200000
#define EXPONENT_OF_TEN 130
#define UNIT (1ULL << 36) /* of fixed point with 36 bits of fraction */

/* For each exponent of them, in units of 10^-places: */
typedef struct {
    uint64_t distance; /* between two floats, from 1 to 10, with 60 bits of fraction */
    int64_t near;      /* half of it, in fixed point, less what it may be wrong by */
    int places;
} Binade;

static Binade BINADES[EXPONENT_OF_TEN + 1];

static int floor_of_log2_of_power_of_10(int exponent) { return (exponent * 1741647) >> 19; }

static void fill_scales(void)
{
    for (int even = 0; even < 2; even++) {
        for (int exponent = 0; exponent < EXPONENTS - 1; exponent++) {
            int q = (exponent ? exponent : 1) - 150;
            /* floor(log10(2^q)), or of 3/4 of it */
            int k = (int)(((int64_t)q * 1262611 - (even ? 524031 : 0)) >> 22);
            Scale scale = {POWERS[k - SMALLEST_K], k, q + floor_of_log2_of_power_of_10(-k) + 1};
            SCALES[even][exponent] = scale;
            if (!even && exponent <= EXPONENT_OF_TEN) {
                uint64_t distance = scale.power >> (4 - scale.shift);
                Binade binade = {distance, (int64_t)(distance >> 25) - 4, -k};
                BINADES[exponent] = binade;
            }
        }
    }
}

/* The upper part of a product, with its lowest bit set if anything was cut off. */
static inline uint32_t scaled(uint64_t power, uint32_t number)
{
    unsigned __int128 product = (unsigned __int128)power * number;
    return (uint32_t)(product >> 64) | ((uint32_t)(product >> 32) > 1);
}

/* The digits of a finite float above zero, as an integer, which is to be multiplied by 10^k. */
static inline uint32_t shortest(uint32_t bits, int *k)
{
    uint32_t exponent = bits >> 23 & 0xff, fraction = bits & 0x7fffff;
    uint32_t significand = fraction | (exponent ? 0x800000 : 0);
    uint32_t even_power = (fraction == 0) & (exponent > 1);
    const Scale *scale = &SCALES[even_power][exponent];
    uint32_t open = significand & 1; /* whether the ends of the interval round to another float */
    uint32_t middle = scaled(scale->power, significand << 2 << scale->shift);
    uint32_t lower = scaled(scale->power, ((significand << 2) - 2 + even_power) << scale->shift) + open;
    uint32_t upper = scaled(scale->power, ((significand << 2) + 2) << scale->shift) - open;
    uint32_t digits = middle >> 2, tens = digits / 10;
    uint32_t tens_down = lower <= 40 * tens, tens_up = 40 * tens + 40 <= upper;
    uint32_t down = lower <= 4 * digits, up = 4 * digits + 4 <= upper;
    uint32_t half = 4 * digits + 2;
    uint32_t nearest = (middle > half) | ((middle == half) & digits);
    uint32_t fine = digits + (down != up ? up : nearest & 1);
    uint32_t coarse = 10 * (tens + tens_up);
    *k = scale->k;
    return (digits >= 10) & (tens_down != tens_up) ? coarse : fine;
}

/* Eight digits as text, the first one in the lowest byte; without '0' added to each.
 *
 * Each step divides the parts of a word in two: a part p becomes p / n, and p % n in the upper half of its bits.
 */
static inline uint64_t eight_digits(uint32_t number)
{
    uint64_t thousands = number / 10000;
    uint64_t four = ((uint64_t)number << 32) - thousands * ((10000ULL << 32) - 1);
    uint64_t hundreds = (four * 10486 >> 20) & 0x0000007f0000007f;
    uint64_t two = (four << 16) - hundreds * ((100 << 16) - 1);
    uint64_t tens = (two * 103 >> 10) & 0x000f000f000f000f;
    return (two << 8) - tens * ((10 << 8) - 1);
}

/* What one float takes at most: a sign, "0.", 13 digits and a comma, or 15 digits and ".0". */
#define MOST_CHARACTERS 20
#define SLACK 32 /* eight bytes are written at a time */
#define ZEROS 0x3030303030303030

/* A number below one, and not below a millionth: "0." and the digits, up to that of 10^-places. */
static inline char *write_fraction(char *at, uint32_t tens, uint32_t last, int places)
{
    uint64_t eight = eight_digits(tens), zeros = ZEROS;
    int trailing = -!last & (1 + (__builtin_clzll(eight) >> 3));
    char *end = at + 2 + places;
    eight += ZEROS;
    memcpy(at, &zeros, 8);
    memcpy(end - 9, &eight, 8);
    end[-1] = (char)('0' + last);
    memcpy(at, "0.", 2);
    return end - trailing;
}

/* A number from one to below ten, in units of 10^-7. */
static inline char *write_unit(char *at, uint32_t tens, uint32_t last)
{
    uint64_t eight = eight_digits(tens); /* the first is 0 */
    int trailing = -!last & (1 + (__builtin_clzll(eight) >> 3));
    eight += ZEROS;
    memcpy(at, &eight, 8);
    at[8] = (char)('0' + last);
    at[0] = at[1];
    at[1] = '.';
    return at + 9 - (trailing < 7 ? trailing : 6);
}

/* One of the usual numbers.
 *
 * One product is the number in units of 10^-places. The nearest integer reads as the same float, as a unit is at most
 * the distance between two floats. The nearest multiple of ten has fewer digits; it reads as the same float if it is
 * less than half that distance away. (Below a power of two floats are half as far apart, but no usual power of two has
 * such a multiple below it.) There are no branches, as which case applies is random.
 */
static inline char *write_usual(char *at, uint32_t bits)
{
    const Binade *binade = &BINADES[bits >> 23];
    uint64_t significand = (uint64_t)bits << 40 | 1ULL << 63;
    uint64_t number = (uint64_t)((unsigned __int128)significand * binade->distance >> 64);
    uint32_t tens = ((uint32_t)(number / UNIT) + 5) / 10;
    int64_t beyond = (int64_t)(number - tens * (10 * UNIT));
    int32_t is_far = (beyond < 0 ? -beyond : beyond) >= binade->near;
    int32_t units = (int32_t)((beyond + (int64_t)UNIT / 2) >> 36) & -is_far;
    int32_t borrow = units >> 31; /* -1 or 0 */
    tens += (uint32_t)borrow;
    uint32_t last = (uint32_t)(units + (borrow & 10));
    return bits < ONE ? write_fraction(at, tens, last, binade->places) : write_unit(at, tens, last);
}

static char *write_any(char *at, uint32_t positive)
{
    if (!positive) {
        memcpy(at, "0.0", 3);
        return at + 3;
    }
    int k;
    uint32_t digits = shortest(positive, &k);
    char text[16];
    while (digits % 10 == 0) {
        digits /= 10;
        k++;
    }
    int count = 0;
    for (uint32_t left = digits; left; left /= 10)
        text[sizeof text - ++count] = (char)('0' + left % 10);
    const char *first = text + sizeof text - count;
    int point = count + k; /* the number is 0.d1d2d3… times 10^point */
    if (point > 15 || point < 1) {
        *at++ = *first;
        if (count > 1)
            *at++ = '.';
        memcpy(at, first + 1, (size_t)count - 1);
        at += count - 1;
        return at + snprintf(at, 5, "e%d", point - 1);
    }
    int before = count < point ? count : point;
    memcpy(at, first, (size_t)before);
    memset(at + before, '0', (size_t)(point - before));
    at += point;
    *at++ = '.';
    if (count <= point)
        *at++ = '0';
    memcpy(at, first + before, (size_t)(count - before));
    return at + count - before;
}

static inline char *write_float(char *at, uint32_t bits)
{
    uint32_t positive = bits & 0x7fffffff;
    *at = '-';
    at += bits >> 31;
    return positive - A_MILLIONTH < TEN - A_MILLIONTH ? write_usual(at, positive) : write_any(at, positive);
}

static PyObject *to_json(PyObject *module, PyObject *item)
{
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Py_ssize_t count = view.len / 4;
    const char *numbers = view.buf;
    PyObject *json = NULL;
    char *text = NULL;
    if (!are_finite(numbers, count)) {
        PyErr_SetString(PyExc_ValueError, "a number is not finite");
        goto done;
    }
    text = PyMem_Malloc((size_t)count * MOST_CHARACTERS + SLACK);
    if (!text) {
        PyErr_NoMemory();
        goto done;
    }
    char *at = text;
    *at++ = '[';
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, numbers + 4 * i, 4);
        at = write_float(at, bits);
        *at++ = ',';
    }
    at -= count > 0;
    *at++ = ']';
    json = PyBytes_FromStringAndSize(text, at - text);
done:
    PyMem_Free(text);
    PyBuffer_Release(&view);
    return json;
}

/* ---- JSON to floats ----------------------------------------------------------------------------------------------
 *
 * The value of a number is its double, correctly rounded, and then that as a float: what Python does. The double is
 * computed with at most a few units of error in its last place, which cannot change the float, unless the double is
 * about half way between two of them. Then, and for unusual numbers, Python's own function parses it.
 */

typedef struct {
    const char *at, *end;
} Text;

static const double DOUBLES[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint32_t INTEGERS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
#define EXACT_POWERS 22
#define EXACT_INTEGERS ((uint64_t)1 << 53)
#define DOUBTFUL 16 /* units in the last place of a double */

static inline int is_space(char character)
{
    return character == ' ' || character == '\n' || character == '\r' || character == '\t';
}

static inline void skip_space(Text *text)
{
    while (text->at < text->end && is_space(*text->at))
        text->at++;
}

static inline int is_next(Text *text, char character)
{
    if (text->at >= text->end || *text->at != character)
        return 0;
    text->at++;
    return 1;
}

static inline int is_digit(const Text *text) { return text->at < text->end && (unsigned char)(*text->at - '0') < 10; }

/* Zero if eight characters are digits. Otherwise its lowest byte that is not zero is that of the first other one. */
static inline uint64_t other_than_digits(uint64_t eight)
{
    return ((eight & 0xf0f0f0f0f0f0f0f0) | ((eight + 0x0606060606060606) & 0xf0f0f0f0f0f0f0f0) >> 4) ^
           0x3333333333333333;
}

/* The number that eight digits, from 0 to 9, are; the first one is in the lowest byte. */
static inline uint64_t number_of(uint64_t digits)
{
    digits = digits * 10 + (digits >> 8);
    return ((digits & 0x000000ff000000ff) * (100 + ((uint64_t)1000000 << 32)) +
            (digits >> 16 & 0x000000ff000000ff) * (1 + ((uint64_t)10000 << 32))) >>
           32;
}

/* Whether eight digits follow; then they are added to the number. */
static inline int eight_more(Text *text, uint64_t *number)
{
    uint64_t digits;
    if (text->end - text->at < 8)
        return 0;
    memcpy(&digits, text->at, 8);
    if (other_than_digits(digits))
        return 0;
    *number = *number * 100000000 + number_of(digits - ZEROS);
    text->at += 8;
    return 1;
}

static inline void read_digits(Text *text, uint64_t *number)
{
    while (eight_more(text, number))
        ;
    for (; is_digit(text); text->at++)
        *number = *number * 10 + (uint64_t)(*text->at - '0');
}

/* 0 if an exception is set. */
static int parse_slowly(const char *start, const char *end, double *value)
{
    size_t size = (size_t)(end - start);
    char *copy = PyMem_Malloc(size + 1);
    if (!copy) {
        PyErr_NoMemory();
        return 0;
    }
    memcpy(copy, start, size);
    copy[size] = 0;
    *value = PyOS_string_to_double(copy, NULL, NULL);
    PyMem_Free(copy);
    return !(*value == -1.0 && PyErr_Occurred());
}

/* Whether a double with a small error may be another float than without. */
static inline int is_doubtful(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, 8);
    uint64_t beyond_float = bits & 0x1fffffff;
    return beyond_float - (0x10000000 - DOUBTFUL) <= 2 * DOUBTFUL || value < FLT_MIN || value >= FLT_MAX;
}

/* A number of the usual form: "0.", 8 to 19 digits and no exponent. */
typedef struct {
    uint32_t negative;
    const char *fraction, *end; /* of its digits */
} Usual;

/* Whether a number of the usual form is next.
 *
 * Its sign and the number of its digits are random, so no branch depends on them, but for whether there are 16.
 */
static inline int find_usual(const Text *text, Usual *usual)
{
    if (text->end - text->at < 1 + 2 + 24)
        return 0;
    usual->negative = *text->at == '-';
    const char *at = usual->fraction = text->at + usual->negative + 2;
    uint64_t first, others;
    memcpy(&first, at, 8);
    memcpy(&others, at += 8, 8);
    if (at[-10] != '0' || at[-9] != '.' || other_than_digits(first))
        return 0;
    others = other_than_digits(others);
    if (!others) {
        memcpy(&others, at += 8, 8);
        others = other_than_digits(others) | 1U << 24; /* at most three more */
    }
    usual->end = at + (__builtin_ctzll(others) >> 3);
    return (unsigned char)(*usual->end - '0') > 9 && (*usual->end | 0x20) != 'e';
}

/* Whether it could be read. */
static inline int read_usual(const Usual *usual, float *number)
{
    const char *at = usual->fraction;
    int count = (int)(usual->end - at), more = count & 7;
    uint64_t digits = 0, last;
    for (int left = count; left >= 8; left -= 8, at += 8) {
        memcpy(&last, at, 8);
        digits = digits * 100000000 + number_of(last - ZEROS);
    }
    memcpy(&last, at, 8);
    digits = digits * INTEGERS[more] + number_of((last - ZEROS) << 8 << (56 - 8 * more));
    double value = (double)digits / DOUBLES[count];
    if (digits >= EXACT_INTEGERS && is_doubtful(value))
        return 0;
    uint32_t bits;
    *number = (float)value;
    memcpy(&bits, number, 4);
    bits |= usual->negative << 31;
    memcpy(number, &bits, 4);
    return 1;
}

typedef enum { FAILED, NOT_A_NUMBER, TOO_LARGE, READ } Outcome; /* with FAILED, an exception is set */

static inline Outcome read_number(Text *text, float *number)
{
    Usual usual;
    if (find_usual(text, &usual) && read_usual(&usual, number)) {
        text->at = usual.end;
        return READ;
    }
    const char *start = text->at;
    int negative = is_next(text, '-');
    uint64_t digits = 0;
    const char *integer = text->at;
    if (!is_next(text, '0'))
        read_digits(text, &digits);
    if (text->at == integer)
        return NOT_A_NUMBER;
    Py_ssize_t significant = *integer == '0' ? 0 : text->at - integer;
    int exponent = 0, is_integer = 1;
    if (is_next(text, '.')) {
        const char *fraction = text->at;
        is_integer = 0;
        if (!significant)
            while (text->at < text->end && *text->at == '0')
                text->at++;
        const char *after_zeros = text->at;
        read_digits(text, &digits);
        if (text->at == fraction)
            return NOT_A_NUMBER;
        significant += text->at - after_zeros;
        if (text->at - fraction > 1000)
            significant = 1000;
        else
            exponent = -(int)(text->at - fraction);
    }
    if (text->at < text->end && (*text->at | 0x20) == 'e') {
        text->at++;
        is_integer = 0;
        int down = is_next(text, '-');
        if (!down)
            is_next(text, '+');
        if (!is_digit(text))
            return NOT_A_NUMBER;
        int more = 0;
        for (; is_digit(text); text->at++)
            more = more < 10000 ? more * 10 + (*text->at - '0') : more;
        exponent += down ? -more : more;
    }
    double value;
    if (significant <= 19 && digits == 0) {
        *number = negative && !is_integer ? -0.0F : 0.0F; /* Python's integers have no negative zero */
        return READ;
    }
    int is_exact = digits < EXACT_INTEGERS && exponent >= -EXACT_POWERS && exponent <= EXACT_POWERS;
    if (significant > 19 || exponent > 2 * EXACT_POWERS || exponent < -2 * EXACT_POWERS)
        goto slowly;
    value = (double)digits;
    if (exponent < -EXACT_POWERS)
        value = value / DOUBLES[EXACT_POWERS] / DOUBLES[-exponent - EXACT_POWERS];
    else if (exponent < 0)
        value /= DOUBLES[-exponent];
    else if (exponent <= EXACT_POWERS)
        value *= DOUBLES[exponent];
    else
        value = value * DOUBLES[EXACT_POWERS] * DOUBLES[exponent - EXACT_POWERS];
    if ((!is_exact || value >= FLT_MAX) && is_doubtful(value))
        goto slowly;
    *number = (float)(negative ? -value : value);
    return READ;
slowly:
    if (!parse_slowly(start, text->at, &value))
        return FAILED;
    *number = (float)value;
    return isinf(*number) ? TOO_LARGE : READ;
}

static inline void skip_digits(Text *text)
{
    uint64_t digits;
    while (text->end - text->at >= 8) {
        memcpy(&digits, text->at, 8);
        uint64_t others = other_than_digits(digits);
        if (others) {
            text->at += __builtin_ctzll(others) >> 3;
            return;
        }
        text->at += 8;
    }
    while (is_digit(text))
        text->at++;
}

/* Checks a number. Its value is only computed if it may be too large, which takes an exponent or 39 digits. */
static inline Outcome check_number(Text *text)
{
    Usual usual;
    if (find_usual(text, &usual)) {
        text->at = usual.end;
        return READ;
    }
    Text number = *text;
    is_next(text, '-');
    const char *integer = text->at;
    if (!is_next(text, '0'))
        skip_digits(text);
    Py_ssize_t before_point = text->at - integer;
    if (!before_point)
        return NOT_A_NUMBER;
    if (is_next(text, '.')) {
        const char *fraction = text->at;
        skip_digits(text);
        if (text->at == fraction)
            return NOT_A_NUMBER;
    }
    if (before_point <= FLT_MAX_10_EXP && (text->at == text->end || (*text->at | 0x20) != 'e'))
        return READ;
    float ignored;
    Outcome outcome = read_number(&number, &ignored);
    *text = number;
    return outcome;
}

/* Reads an array of numbers; `numbers` has room for all, or is NULL. */
static inline Outcome read_row(Text *text, char *numbers, Py_ssize_t *count)
{
    *count = 0;
    if (!is_next(text, '['))
        return NOT_A_NUMBER;
    skip_space(text);
    if (is_next(text, ']'))
        return READ;
    Outcome whole = READ;
    do {
        float number = 0;
        skip_space(text);
        Outcome outcome = numbers ? read_number(text, &number) : check_number(text);
        if (outcome == FAILED || outcome == NOT_A_NUMBER)
            return outcome;
        if (outcome == TOO_LARGE)
            whole = TOO_LARGE; /* what follows may be no number at all */
        if (numbers)
            memcpy(numbers + 4 * *count, &number, 4);
        ++*count;
        skip_space(text);
    } while (is_next(text, ','));
    return is_next(text, ']') ? whole : NOT_A_NUMBER;
}

static inline Outcome read_only_row(Text *text, char *numbers, Py_ssize_t *count)
{
    skip_space(text);
    Outcome outcome = read_row(text, numbers, count);
    if (outcome == FAILED || outcome == NOT_A_NUMBER)
        return outcome;
    skip_space(text);
    return text->at == text->end ? outcome : NOT_A_NUMBER;
}

static PyObject *from_json(PyObject *module, PyObject *item)
{
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Text text = {view.buf, (const char *)view.buf + view.len};
    PyObject *vector = NULL;
    Py_ssize_t count;
    /* A number has at least one character, and a comma or bracket after it. */
    char *numbers = PyMem_Malloc((size_t)view.len / 2 * 4 + 4);
    if (!numbers) {
        PyErr_NoMemory();
    } else {
        Outcome outcome = read_only_row(&text, numbers, &count);
        if (outcome == READ)
            vector = PyBytes_FromStringAndSize(numbers, count * 4);
        else if (outcome != FAILED)
            PyErr_SetString(PyExc_ValueError, "a value is not a number of single precision");
    }
    PyMem_Free(numbers);
    PyBuffer_Release(&view);
    return vector;
}

static PyObject *count_json(PyObject *module, PyObject *item)
{
    Py_buffer view;
    if (PyObject_GetBuffer(item, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Text text = {view.buf, (const char *)view.buf + view.len};
    PyObject *result = NULL;
    Py_ssize_t count;
    switch (read_only_row(&text, NULL, &count)) {
    case FAILED:
        break;
    case NOT_A_NUMBER:
        result = Py_NewRef(Py_None);
        break;
    case TOO_LARGE:
        PyErr_SetString(PyExc_ValueError, "a number is too large for single precision");
        break;
    case READ:
        result = PyLong_FromSsize_t(count);
        break;
    }
    PyBuffer_Release(&view);
    return result;
}

/* Appends each row to the list. Whether there are rows and all have the same dimensions. */
static int collect_rows(Text *text, PyObject *rows, Py_ssize_t *dimensions)
{
    *dimensions = -1;
    skip_space(text);
    if (!is_next(text, '['))
        return 0;
    do {
        Py_ssize_t count;
        skip_space(text);
        const char *start = text->at;
        if (read_row(text, NULL, &count) != READ || (*dimensions != -1 && count != *dimensions))
            return 0;
        *dimensions = count;
        PyObject *row = PyBytes_FromStringAndSize(start, text->at - start);
        int failed = !row || PyList_Append(rows, row) < 0;
        Py_XDECREF(row);
        if (failed)
            return 0;
        skip_space(text);
    } while (is_next(text, ','));
    if (!is_next(text, ']'))
        return 0;
    skip_space(text);
    return text->at == text->end;
}

static PyObject *split_json(PyObject *module, PyObject *body)
{
    Py_buffer view;
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Text text = {view.buf, (const char *)view.buf + view.len};
    PyObject *result = NULL, *rows = PyList_New(0);
    Py_ssize_t dimensions;
    if (rows) {
        if (collect_rows(&text, rows, &dimensions))
            result = Py_BuildValue("(On)", rows, dimensions);
        else if (!PyErr_Occurred())
            result = Py_NewRef(Py_None);
    }
    Py_XDECREF(rows);
    PyBuffer_Release(&view);
    return result;
}

/* ---- Base64 ------------------------------------------------------------------------------------------------------ */

#define NOT_BASE64 0x80000000

/* What each of four characters adds to the three bytes that they stand for. */
static uint32_t BASE64[4][256];

static void fill_base64(void)
{
    const char *alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0; i < 4 * 256; i++)
        BASE64[i / 256][i % 256] = NOT_BASE64;
    for (uint32_t digit = 0; digit < 64; digit++) {
        int character = alphabet[digit];
        BASE64[0][character] = digit << 2;
        BASE64[1][character] = digit >> 4 | (digit & 0xf) << 12;
        BASE64[2][character] = digit >> 2 << 8 | (digit & 0x3) << 22;
        BASE64[3][character] = digit << 16;
    }
}

static inline uint32_t three_bytes(const unsigned char *four)
{
    return BASE64[0][four[0]] | BASE64[1][four[1]] | BASE64[2][four[2]] | BASE64[3][four[3]];
}

/* The bytes in a JSON string of base64. NULL, without an exception, if it is anything else or has escapes. */
static PyObject *decode_base64(Text text)
{
    skip_space(&text);
    while (text.end > text.at && is_space(text.end[-1]))
        text.end--;
    Py_ssize_t size = text.end - text.at - 2;
    if (size < 4 || size % 4 || *text.at != '"' || text.end[-1] != '"')
        return NULL;
    const unsigned char *at = (const unsigned char *)text.at + 1, *last = at + size - 4;
    char four[4];
    memcpy(four, last, 4);
    int padding = four[3] != '=' ? 0 : four[2] != '=' ? 1 : 2;
    memset(four + 4 - padding, 'A', (size_t)padding);
    PyObject *decoded = PyBytes_FromStringAndSize(NULL, size / 4 * 3 - padding);
    if (!decoded)
        return NULL;
    char *bytes = PyBytes_AsString(decoded);
    uint32_t three, seen = 0;
    for (; at < last; at += 4, bytes += 3) {
        seen |= three = three_bytes(at);
        memcpy(bytes, &three, 4); /* the next three overwrite the fourth byte */
    }
    seen |= three = three_bytes((unsigned char *)four);
    memcpy(bytes, &three, (size_t)(3 - padding));
    if (seen & NOT_BASE64)
        Py_CLEAR(decoded);
    return decoded;
}

/* Appends each vector to the list. Whether there are any, and all are finite and have the same dimensions. */
static int collect_base64(PyObject *texts, PyObject *vectors, Py_ssize_t *dimensions)
{
    *dimensions = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(texts); i++) {
        Py_buffer view;
        if (PyObject_GetBuffer(PyList_GetItem(texts, i), &view, PyBUF_SIMPLE) < 0)
            return 0;
        Text text = {view.buf, (const char *)view.buf + view.len};
        PyObject *vector = decode_base64(text);
        PyBuffer_Release(&view);
        if (!vector)
            return 0;
        Py_ssize_t size = PyBytes_Size(vector), count = size / 4;
        int fits = size % 4 == 0 && (i == 0 || count == *dimensions) && are_finite(PyBytes_AsString(vector), count);
        int failed = !fits || PyList_Append(vectors, vector) < 0;
        Py_DECREF(vector);
        if (failed)
            return 0;
        *dimensions = count;
    }
    return *dimensions > 0;
}

static PyObject *from_base64(PyObject *module, PyObject *texts)
{
    PyObject *result = NULL, *vectors = PyList_New(0);
    Py_ssize_t dimensions;
    if (vectors) {
        if (collect_base64(texts, vectors, &dimensions))
            result = Py_BuildValue("(On)", vectors, dimensions);
        else if (!PyErr_Occurred())
            result = Py_NewRef(Py_None);
    }
    Py_XDECREF(vectors);
    return result;
}

/* ---- Quantization --------------------------------------------------------------------------------------------- */

/* Added to a small number, it leaves the nearest integer in the lowest byte of the sum. */
#define ROUND 12582912.0F

static PyObject *int8(PyObject *module, PyObject *arguments)
{
    Py_buffer view;
    double scale;
    if (!PyArg_ParseTuple(arguments, "y*d", &view, &scale))
        return NULL;
    Py_ssize_t count = view.len / 4;
    const char *numbers = view.buf;
    PyObject *result = PyBytes_FromStringAndSize(NULL, count);
    int8_t *bytes = result ? (int8_t *)PyBytes_AsString(result) : NULL;
    int fits = 1;
    for (Py_ssize_t i = 0; bytes && i < count; i++) {
        float number;
        memcpy(&number, numbers + 4 * i, 4);
        float rounded = (float)((double)number * scale + ROUND) - ROUND;
        fits &= fabsf(rounded) <= INT8_MAX;
        bytes[i] = fits ? (int8_t)rounded : 0;
    }
    for (Py_ssize_t i = 0; bytes && !fits && i < count; i++) {
        float number;
        memcpy(&number, numbers + 4 * i, 4);
        double rounded = rint((double)number * scale);
        bytes[i] = (int8_t)fmax(-INT8_MAX, fmin(INT8_MAX, rounded));
    }
    PyBuffer_Release(&view);
    return result;
}

static PyMethodDef METHODS[] = {
    {"to_json", to_json, METH_O, NULL},
    {"from_json", from_json, METH_O, NULL},
    {"from_base64", from_base64, METH_O, NULL},
    {"int8", int8, METH_VARARGS, NULL},
    {"is_finite", is_finite, METH_O, NULL},
    {"count_json", count_json, METH_O, NULL},
    {"split_json", split_json, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, .m_name = "compiled", .m_size = 0, .m_methods = METHODS};

PyMODINIT_FUNC PyInit_compiled(void)
{
    fill_scales();
    fill_base64();
    return PyModuleDef_Init(&MODULE);
}
