/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf.c - what a plugin's file exports, needs and asks of the loader.
 *
 * Reads the dynamic symbol table with bounds checked; the file has passed
 * the loader's own look at its headers, but may be odd all the same.
 */

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "conform/conform.h"

struct image {
    const unsigned char *data;
    size_t               size;
};

/* Bytes [off, off + len) of the file, or NULL. */
static const void *
part(const struct image *im, uint64_t off, uint64_t len)
{
    if (off > im->size || len > im->size - off)
        return NULL;
    return im->data + off;
}

static int
read_file(const char *path, struct image *im)
{
    FILE *f = fopen(path, "rb");
    long  size;
    void *data = NULL;

    if (f == NULL)
        return 0;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) > 0
        && fseek(f, 0, SEEK_SET) == 0 && (data = malloc((size_t) size)) != NULL
        && fread(data, 1, (size_t) size, f) == (size_t) size) {
        im->data = data;
        im->size = (size_t) size;
    } else {
        free(data);
        data = NULL;
    }
    fclose(f);
    return data != NULL;
}

/* Names that a linker adds by itself. */
static int
is_linkers(const char *name)
{
    static const char *const names[] = { "_init", "_fini", "_edata",
                                         "__bss_start", "_end", "" };
    size_t                   i;

    for (i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(names[i], name) == 0)
            return 1;
    return 0;
}

static void
check_symbols(struct conform *c, const struct image *im,
              const Elf64_Shdr *sh, const char *strings, uint64_t n_strings)
{
    uint64_t i, n = sh->sh_size / sizeof(Elf64_Sym);
    int      undefined = 0, other = 0, found = 0;

    for (i = 1; i < n; i++) {
        const unsigned char *at = part(im, sh->sh_offset + i * sizeof(Elf64_Sym),
                                       sizeof(Elf64_Sym));
        Elf64_Sym   sym;
        const char *name;
        int         bind, hidden;

        if (at == NULL)
            return;
        memcpy(&sym, at, sizeof(sym));
        if (sym.st_name >= n_strings)
            continue;
        name = strings + sym.st_name;
        if (memchr(name, '\0', n_strings - sym.st_name) == NULL)
            continue;
        bind = ELF64_ST_BIND(sym.st_info);
        hidden = ELF64_ST_VISIBILITY(sym.st_other) == STV_HIDDEN
                 || ELF64_ST_VISIBILITY(sym.st_other) == STV_INTERNAL;
        if (sym.st_shndx == SHN_UNDEF) {
            if (strncmp(name, "moe_", 4) == 0) {
                undefined++;
                conform_note(c, "undefined: %s", name);
            }
            continue;
        }
        if (bind == STB_LOCAL || hidden)
            continue;
        if (strcmp(name, "moe_plugin") == 0) {
            found = ELF64_ST_TYPE(sym.st_info) == STT_OBJECT;
        } else if (!is_linkers(name)) {
            if (other++ < 8)
                conform_note(c, "exported: %s", name);
        }
    }
    conform_ok(c, found, "exports the data symbol moe_plugin");
    conform_ok(c, other == 0,
               "exports nothing else (-fvisibility=hidden, or a linker map)");
    conform_ok(c, undefined == 0,
               "needs no moe_* symbol: the core is reached through moe_host");
}

void
conform_elf(struct conform *c, const char *path)
{
    struct image im = { NULL, 0 };
    const void  *at;
    Elf64_Ehdr   eh;
    Elf64_Shdr   sh, str;
    Elf64_Phdr   ph;
    unsigned     i, textrel = 0, execstack = 0, seen = 0;

    if (!read_file(path, &im)) {
        conform_ok(c, 0, "%s can be read", path);
        return;
    }
    at = part(&im, 0, sizeof(eh));
    if (at == NULL) {
        free((void *) (uintptr_t) im.data);
        return;
    }
    memcpy(&eh, at, sizeof(eh));
    for (i = 0; i < eh.e_shnum; i++) {
        at = part(&im, eh.e_shoff + (uint64_t) i * sizeof(sh), sizeof(sh));
        if (at == NULL)
            break;
        memcpy(&sh, at, sizeof(sh));
        if (sh.sh_type != SHT_DYNSYM || sh.sh_link >= eh.e_shnum)
            continue;
        at = part(&im, eh.e_shoff + (uint64_t) sh.sh_link * sizeof(str),
                  sizeof(str));
        if (at == NULL)
            break;
        memcpy(&str, at, sizeof(str));
        at = part(&im, str.sh_offset, str.sh_size);
        if (at != NULL) {
            check_symbols(c, &im, &sh, at, str.sh_size);
            seen = 1;
        }
    }
    if (!seen)
        conform_skip(c, "symbols", "the file has no section headers");
    for (i = 0; i < eh.e_phnum; i++) {
        at = part(&im, eh.e_phoff + (uint64_t) i * sizeof(ph), sizeof(ph));
        if (at == NULL)
            break;
        memcpy(&ph, at, sizeof(ph));
        if (ph.p_type == PT_GNU_STACK && (ph.p_flags & PF_X) != 0)
            execstack = 1;
        if (ph.p_type == PT_DYNAMIC) {
            uint64_t k;

            for (k = 0; k < ph.p_filesz / sizeof(Elf64_Dyn); k++) {
                Elf64_Dyn dyn;

                at = part(&im, ph.p_offset + k * sizeof(dyn), sizeof(dyn));
                if (at == NULL)
                    break;
                memcpy(&dyn, at, sizeof(dyn));
                textrel |= dyn.d_tag == DT_TEXTREL;
            }
        }
    }
    conform_ok(c, !textrel, "has no text relocations (compile with -fPIC)");
    conform_ok(c, !execstack, "asks for no executable stack");
    free((void *) (uintptr_t) im.data);
}
