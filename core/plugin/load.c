/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load.c - opens a plugin's file.
 *
 * Owns the look at the ELF headers, dlopen and the search for the descriptor.
 * What the descriptor says is validate.c's.  The look at the headers is here
 * because the dynamic linker trusts them: a file that was copied by half is
 * mapped past its end, and the process dies at the first touch.
 */

#include "plugin/load.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__x86_64__)
#    define HOST_MACHINE EM_X86_64
#elif defined(__aarch64__)
#    define HOST_MACHINE EM_AARCH64
#elif defined(__riscv)
#    define HOST_MACHINE EM_RISCV
#elif defined(__powerpc64__)
#    define HOST_MACHINE EM_PPC64
#elif defined(__loongarch__)
#    define HOST_MACHINE 258
#else
#    define HOST_MACHINE EM_NONE /* not compared */
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#    define HOST_DATA ELFDATA2MSB
#else
#    define HOST_DATA ELFDATA2LSB
#endif

static const char *
machine_text(unsigned machine)
{
    switch (machine) {
    case EM_386:
        return "i386";
    case EM_ARM:
        return "arm";
    case EM_PPC64:
        return "ppc64";
    case EM_X86_64:
        return "x86-64";
    case EM_AARCH64:
        return "aarch64";
    case EM_RISCV:
        return "riscv";
    default:
        return "another machine";
    }
}

/* All of len bytes at off, or 0. */
static int
read_at(int fd, void *dst, size_t len, uint64_t off)
{
    char *p = dst;

    while (len > 0) {
        ssize_t got = pread(fd, p, len, (off_t) off);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        p += got;
        off += (uint64_t) got;
        len -= (size_t) got;
    }
    return 1;
}

static moe_status
check_headers(int fd, uint64_t bytes, struct moe_error *err)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph;
    uint64_t   need;
    unsigned   i, loads = 0;

    if (bytes < sizeof(eh) || !read_at(fd, &eh, sizeof(eh), 0)
        || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "not a shared object (no ELF header); take it out "
                        "of the plugin folder");
    if (eh.e_ident[EI_CLASS] != ELFCLASS64
        || eh.e_ident[EI_DATA] != HOST_DATA
        || (HOST_MACHINE != EM_NONE && eh.e_machine != HOST_MACHINE))
        return moe_fail(err, MOE_E_ABI, 0,
                        "built for %s%s, this program for %s; build it for "
                        "this machine",
                        machine_text(eh.e_machine),
                        eh.e_ident[EI_CLASS] == ELFCLASS64 ? "" : " (32 bit)",
                        machine_text(HOST_MACHINE));
    if (eh.e_type != ET_DYN || eh.e_phentsize != sizeof(ph)
        || eh.e_phnum == 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "an ELF file of type %u, not a shared object; link "
                        "it with -shared",
                        (unsigned) eh.e_type);
    for (i = 0; i < eh.e_phnum; i++) {
        if (eh.e_phoff > bytes
            || !read_at(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)))
            return moe_fail(err, MOE_E_ABI, 0,
                            "cut short: %llu bytes do not hold its program "
                            "headers; copy or build it again",
                            (unsigned long long) bytes);
        if (ph.p_type != PT_LOAD && ph.p_type != PT_DYNAMIC)
            continue;
        loads += ph.p_type == PT_LOAD;
        if (__builtin_add_overflow(ph.p_offset, ph.p_filesz, &need)
            || need > bytes)
            return moe_fail(err, MOE_E_ABI, 0,
                            "cut short: %llu bytes, its segments need %llu; "
                            "copy or build it again",
                            (unsigned long long) bytes,
                            (unsigned long long) need);
    }
    if (loads == 0)
        return moe_fail(err, MOE_E_ABI, 0,
                        "has nothing to load; link it with -shared");
    return MOE_OK;
}

moe_status
moe_plugin_check_file(const char *path, struct moe_error *err)
{
    struct stat st;
    moe_status  status;
    /* O_NONBLOCK: a FIFO in the folder must not hang the start. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return moe_fail(err, MOE_E_NOT_FOUND, errno,
                        "no such file; give the path of a plugin, or a name "
                        "that `moe-run plugins` lists");
    if (fd < 0 || fstat(fd, &st) != 0) {
        status = moe_fail(err, MOE_E_IO, errno,
                          "cannot be read: %s; check its owner and mode",
                          strerror(errno));
        if (fd >= 0)
            close(fd);
        return status;
    }
    if (!S_ISREG(st.st_mode))
        status = moe_fail(err, MOE_E_ABI, 0,
                          "not a regular file; a plugin is a shared object");
    else
        status = check_headers(fd, (uint64_t) st.st_size, err);
    close(fd);
    return status;
}

/* dlerror() puts the path first; the caller does that too. */
static const char *
dl_text(const char *path)
{
    const char *text = dlerror();
    size_t      len = strlen(path);

    if (text == NULL)
        return "the dynamic linker gave no reason";
    if (strncmp(text, path, len) == 0 && text[len] == ':') {
        text += len + 1;
        while (*text == ' ')
            text++;
    }
    return text;
}

moe_status
moe_plugin_map(const char *path, void **handle,
               const struct moe_plugin **desc, uint64_t *size,
               struct moe_error *err)
{
    void       *h, *symbol;
    const char *text;

    /* RTLD_NOW: a symbol that is missing is found here, not in the middle
     * of a generation.  RTLD_LOCAL: plugins do not see each other. */
    h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (h == NULL) {
        text = dl_text(path);
        return moe_fail(err, MOE_E_ABI, 0, "cannot be loaded: %s; %s", text,
                        strstr(text, "undefined symbol: moe_") != NULL
                            ? "a plugin reaches the core through struct "
                              "moe_host alone"
                            : "install what it needs, or build it again");
    }
    dlerror();
    symbol = dlsym(h, "moe_plugin");
    if (symbol == NULL) {
        dlclose(h);
        return moe_fail(err, MOE_E_ABI, 0,
                        "has no symbol moe_plugin; define it with "
                        "MOE_PLUGIN_DEFINE, or take the file out of the "
                        "plugin folder");
    }
    *size = 0;
#ifdef __GLIBC__
    {
        Dl_info          info;
        const Elf64_Sym *sym = NULL;

        if (dladdr1(symbol, &info, (void **) &sym, RTLD_DL_SYMENT) != 0
            && sym != NULL && info.dli_saddr == symbol) {
            if (ELF64_ST_TYPE(sym->st_info) == STT_FUNC
                || ELF64_ST_TYPE(sym->st_info) == STT_GNU_IFUNC) {
                dlclose(h);
                return moe_fail(err, MOE_E_ABI, 0,
                                "its moe_plugin is a function, not data; "
                                "define it with MOE_PLUGIN_DEFINE");
            }
            *size = sym->st_size;
        }
    }
#endif
    *handle = h;
    *desc = symbol;
    return MOE_OK;
}

void
moe_plugin_unmap(void *handle)
{
    if (handle != NULL)
        dlclose(handle);
}
